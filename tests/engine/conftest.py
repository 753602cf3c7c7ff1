"""Small data, a small network and documents that train it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .runs import Runs

Document = dict[str, Any]
SIZE = 32


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact numbers are compared, on processors with and without bf16; the tests of precision choose for themselves."""
    monkeypatch.setenv("RMLDNN_PRECISION", "float32")


def write_lesions(folder: Path, count: int, seed: int) -> None:
    """``count`` images of noise with a dark disc, in ``inputs``, and the discs as 0/255 masks in ``targets``."""
    generator = np.random.default_rng(seed)
    for kind in ("inputs", "targets"):
        (folder / kind).mkdir(parents=True)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for number in range(count):
        radius = generator.uniform(5, 10)
        row, column = generator.uniform(radius, SIZE - radius, size=2)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        pixels = generator.normal(np.where(inside, 60, 160), 25).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "inputs" / f"scan ({number}).png")
        Image.fromarray(inside.astype(np.uint8) * 255).save(folder / "targets" / f"scan ({number}).png")


@pytest.fixture(scope="session")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 training and 8 test images, 32x32."""
    folder = tmp_path_factory.mktemp("lesions")
    write_lesions(folder / "train", 24, seed=1)
    write_lesions(folder / "test", 8, seed=2)
    return folder


def convolution(name: str, filters: int, activation: str, **settings: object) -> Document:
    """A 3x3 convolution that keeps the size of the image."""
    config = {"name": name, "filters": filters, "kernel_size": [3, 3], "padding": "same", "activation": activation}
    return {"class_name": "Conv2D", "config": config | settings}


def layers_of(*hidden: Document, channels: int = 1, classes: int = 1, activation: str = "sigmoid") -> list[Document]:
    """A network of any image size: the hidden layers between an input and a convolution for the classes."""
    entry = {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, None, None, channels]}}
    return [entry, *hidden, convolution("classes", classes, activation)]


@pytest.fixture
def document(lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Document:
    """A document that trains in seconds; the test runs in a folder of its own, where its files go."""
    monkeypatch.chdir(tmp_path)
    hidden = [convolution("conv1", 8, "relu"), convolution("conv2", 8, "relu")]
    network: Document = {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": layers_of(*hidden),
        "checkpoints": {"save": "checkpoints"},
        "data": {
            "type": "images",
            "input_path": str(lesions / "train" / "inputs"),
            "target_path": str(lesions / "train" / "targets"),
            "test_input_path": str(lesions / "test" / "inputs"),
            "test_target_path": str(lesions / "test" / "targets"),
            "batch_size": 8,
            "test_batch_size": 5,
            "preload": True,
            "grayscale": True,
            "target_is_mask": True,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "loss": {"function": "BCE", "source": "sigmoid"},
    }
    return {"neural_network": network}


@pytest.fixture
def written(document: Document, tmp_path: Path) -> Callable[[Document], Path]:
    """Writes a document, changed as the argument says (keys with dots between sections), and gives its path."""

    def write(changes: Document) -> Path:
        changed = copy.deepcopy(document)
        for path, value in changes.items():
            *parents, key = path.split(".")
            section = changed["neural_network"]
            for parent in parents:
                section = section[parent]
            section[key] = value
        config_path = tmp_path / "config.json"
        config_path.write_text(json.dumps(changed), encoding="utf-8")
        return config_path

    return write


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs documents in the working folder."""
    return Runs(capsys)
