"""Any JSON as a configuration ends in a run or in one line that says what is wrong, with a documented exit status."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rmldnn_contract.config import APPLICATION_LOSSES, LOSSES
from rmldnn_contract.data import TRANSFORMS
from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.optimizer import OPTIMIZERS, SCHEDULERS
from rmldnn_contract.training_log import without_stamp
from rmldnn_torch.command_line import main
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network
from rmldnn_torch.weights import save_checkpoint

from .conftest import convolution, layers_of
from .runs import Document, layer
from .test_network_fuzz import places

EndsWell = Callable[[str], ExitStatus]

_SIZE = 8
_GIBIBYTE = 2**30

MASKS: Document = {
    "outfile": "out.txt",
    "num_epochs": 2,
    "layers": "masks.json",
    "checkpoints": {"save": "checkpoints/", "interval": 1, "load": "masks.pt"},
    "data": {
        "type": "images",
        "input_path": "images/",
        "target_path": "masks/",
        "test_input_path": "images/",
        "test_target_path": "masks/",
        "test_output_path": "predictions/",
        "batch_size": 2,
        "test_batch_size": 3,
        "preload": True,
        "grayscale": True,
        "target_is_mask": True,
        "transforms": [
            {"resize": [_SIZE, _SIZE]},
            {"random_horizontal_flip": 0.5},
            {"jitter_crop": 0.1},
            {"random_rotate": 10},
            {"center_crop": [6, 6]},
            {"normalize": {"mean": 0.5, "std": [0.5]}},
        ],
    },
    "optimizer": {
        "type": "Adam",
        "learning_rate": 0.01,
        "beta1": 0.9,
        "eps": 1e-8,
        "lr_scheduler": {"type": "Warmup", "num_epochs": 2, "start_factor": 0.5, "verbose": True},
    },
    "loss": {"function": "Dice", "source": "sigmoid"},
    "debug": True,
}
LABELS: Document = {
    "num_epochs": 1,
    "layers": "labels.json",
    "data": {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "images/",
        "test_input_path": "images/",
        "training_tag": "images",
        "test_tag": "images",
        "transforms": [{"convert_color": "BGR2RGB"}, {"rotate": 20.0}, {"random_patches": {"number": 1, "size": 2}}],
    },
    "optimizer": {
        "type": "SGD",
        "momentum": 0.5,
        "weight_decay": 0.01,
        "lr_scheduler": {"type": "MultiStep", "gamma": 0.1, "milestones": [1, 2]},
    },
    "loss": {"function": "NLL", "weight": [1.0, 2.0], "ignore_index": 1},
}
VOLUMES: Document = {
    "layers": "volumes.json",
    "data": {
        "type": "numpy",
        "input_path": "volume.npy",
        "target_path": "classes.npy",
        "test_input_path": "volume.npy",
        "hdf5_outfile": "together.h5",
        "hdf5_precision": "half",
        "slicers": [
            {"name": "bricks", "sizes": [4, 3, 4], "strides": [2, 3, 4], "padding": [1, 0, 0]},
            {"sizes": [4, 4, 4], "padded_sizes": [5, 4, 4], "discard_remainders": True, "transpose": False},
        ],
    },
    "optimizer": {"type": "Hessian", "max_iterations": 2, "max_func_eval": 3, "absolute_tolerance": 1e-8},
    "loss": {"function": "NLL"},
}
_LAYERS = {
    "masks": layers_of(convolution("conv1", 2, "relu")),
    "labels": [
        *layers_of(convolution("conv1", 2, "relu"), channels=3, classes=2, activation="linear"),
        layer("GlobalAveragePooling2D", "pool"),
        layer("Activation", "softmax", activation="log_softmax"),
    ],
    "volumes": [
        layer("InputLayer", "data", batch_input_shape=[None, None, None, None, 1]),
        layer("Conv3D", "classes", filters=2, kernel_size=[1, 1, 1], activation="softmax"),
    ],
}

# What a person may write, and what overflows. Counts of work are kept small by ``bounded``, not here.
NUMBERS = st.integers(-2, 9) | st.sampled_from([2**31 - 1, 2**31, 2**63, -(2**63), 10**400]) | st.floats()
NAMES = [*OPTIMIZERS, *SCHEDULERS, *LOSSES, *APPLICATION_LOSSES, *TRANSFORMS]
FILES = ["images", "images/a/0.png", "masks", "masks.json", "masks.pt", "volume.npy", "out_train.txt", "nowhere", "."]
WORDS = [*NAMES, *FILES, "labels", "numpy", "hdf5", "softmax", "single", "", "\0", "\ud800", "x" * 300]
# Without slashes and dots, so that nothing is written outside the folder of the test.
TEXT = st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="/."), max_size=4)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=6,
)


def of_its_kind(value: Any) -> st.SearchStrategy[Any]:
    """Other values of the same type: most of what is not valid for another reason than its type."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return NUMBERS
    if isinstance(value, str):
        return TEXT
    if isinstance(value, list):
        some_of_them = st.lists(st.sampled_from(value), max_size=4) if value else st.just([])
        return some_of_them | st.lists(NUMBERS, min_size=len(value), max_size=len(value))
    return JSON_VALUES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files that the documents name."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for name in ("a/0.png", "b/1.png", "b/2.png"):
        pixels = generator.integers(0, 256, (_SIZE + 1, _SIZE, 3), dtype=np.uint8)
        for kind, image in (("images", Image.fromarray(pixels)), ("masks", Image.fromarray(pixels[..., 0] // 128))):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / kind / name)
    np.save(folder / "volume.npy", generator.normal(size=(5, 6, 4)).astype(np.float32))
    np.save(folder / "classes.npy", generator.integers(0, 2, (5, 6, 4), dtype=np.uint8))
    for name, layers in _LAYERS.items():
        (folder / f"{name}.json").write_text(json.dumps(layers), encoding="utf-8")
    save_checkpoint(folder / "masks.pt", Network(read_network(_LAYERS["masks"])), epoch=1)
    return folder


@pytest.fixture
def ends_well(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EndsWell]:
    """Runs a document, each in new copies of the files; gives the exit status, and the last line bears it out.

    Memory is bounded: a size that overflows must end in a message, not in a machine that swaps.
    """
    numbers = itertools.count()

    def run(text: str) -> ExitStatus:
        folder = tmp_path / str(next(numbers))
        shutil.copytree(files, folder)
        monkeypatch.chdir(folder)
        Path("config.json").write_text(text, encoding="utf-8")
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = ExitStatus(main(["--config=config.json"]))
        last = without_stamp(output.getvalue().splitlines()[-1])
        assert status is not ExitStatus.UNEXPECTED, last
        assert last == "All done (return value = 0)." if status is ExitStatus.OK else last.startswith("Error: ")
        assert errors.getvalue() == ""
        assert not list(folder.glob("**/rmldnn_traceback*"))
        return status

    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + _GIBIBYTE, limits[1]))
    yield run
    resource.setrlimit(resource.RLIMIT_AS, limits)


def bounded(document: Any) -> Any:
    """The document with at most a few steps to do: more would be right, and would only take time."""
    for container, key in list(places([document])):
        if key in {"num_epochs", "max_iterations", "max_func_eval"} and isinstance(container[key], int):
            container[key] = min(container[key], 2)
    return document


@pytest.mark.parametrize("document", [MASKS, LABELS, VOLUMES], ids=["masks", "labels", "volumes"])
def test_the_documents_are_valid(document: Document, ends_well: EndsWell) -> None:
    assert ends_well(json.dumps({"neural_network": document})) is ExitStatus.OK


FEW = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FEW
@given(data=st.data())
def test_a_damaged_document_runs_or_is_refused(ends_well: EndsWell, data: st.DataObject) -> None:
    """One to three values anywhere in a good document replaced by any others, or taken out."""
    document = {"neural_network": copy.deepcopy(data.draw(st.sampled_from([MASKS, LABELS, VOLUMES])))}
    for _ in range(data.draw(st.sampled_from([1, 1, 2, 3]))):
        # Nearly all values are leaves: what replaces a whole section is seldom more than a wrong type.
        found = [(section, key) for section, key in places(document) if not isinstance(section[key], dict)]
        if not found:
            break
        section, key = data.draw(st.sampled_from(found))
        if isinstance(section, dict) and data.draw(st.integers(0, 9)) == 0:
            del section[key]
        else:
            section[key] = data.draw(of_its_kind(section[key]) | JSON_VALUES)
    ends_well(json.dumps(bounded(document)))


@FEW
@given(document=JSON_VALUES | st.builds(lambda network: {"neural_network": network}, JSON_VALUES))
def test_any_json_is_refused(ends_well: EndsWell, document: Any) -> None:
    assert ends_well(json.dumps(document)) is ExitStatus.CONFIGURATION


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"neural_network": 1e999}', "NaN", "\ufeff{}"])
def test_what_is_no_json_is_refused(text: str, ends_well: EndsWell) -> None:
    assert ends_well(text) is ExitStatus.CONFIGURATION
