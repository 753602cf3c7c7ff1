"""The documentation as Sphinx reads it, and folders in which its commands find what the pages speak of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rml_search.synthetic import draw_scan, write_synthetic_data

from .page_blocks import PageContent, read_page

CHECKOUT = Path(__file__).resolve().parents[2]
SIZE = 32
README = "README"
PAGES = (README, *sorted(str(path.relative_to(CHECKOUT / "docs"))[:-4] for path in (CHECKOUT / "docs").rglob("*.rst")))


def _sphinx(*arguments: str) -> None:
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    answer = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", *arguments], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@dataclass(frozen=True)
class Documentation:
    """The pages as HTML, and their contents by name."""

    html: Path
    pages: dict[str, PageContent]


@pytest.fixture(scope="session")
def documentation(tmp_path_factory: pytest.TempPathFactory) -> Documentation:
    """Built as ``make docs`` builds it; README is read by Sphinx too, as the only page of a project of its own."""
    folder = tmp_path_factory.mktemp("documentation")
    html, trees, readme = folder / "html", folder / "trees", folder / "readme"
    _sphinx("-W", "--keep-going", "-d", str(trees), "--builder", "html", str(CHECKOUT / "docs"), str(html))
    readme.mkdir()
    shutil.copy(CHECKOUT / "README.rst", readme / "index.rst")
    shutil.copytree(CHECKOUT / "docs", readme / "docs", ignore=shutil.ignore_patterns("*.rst", "*.py"))
    (readme / "conf.py").touch()
    _sphinx("-W", "-d", str(folder / "readme_trees"), "--builder", "dummy", str(readme), str(folder / "nothing"))
    contents = {name: read_page(trees / f"{name}.doctree") for name in PAGES if name != README}
    return Documentation(html, {README: read_page(folder / "readme_trees" / "index.doctree"), **contents})


@dataclass(frozen=True)
class Sandbox:
    """A folder, and how a shell runs in it."""

    folder: Path
    programs: Path

    def run(self, *command: str) -> None:
        """Runs it as a person would, and expects it to end well."""
        environment = {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "MPLBACKEND": "Agg",
        }
        answer = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert answer.returncode == 0, f"{command[-1]}\n{answer.stdout}{answer.stderr}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands that an installed project has, from this checkout."""
    folder = tmp_path_factory.mktemp("programs")
    starts = {
        "python": "",
        "rml-optimization": f"'{CHECKOUT / 'rml_optimization.py'}'",
        "rmldnn": "-m rmldnn_torch",
    }
    for name, start in starts.items():
        script = folder / name
        script.write_text(f"#!/bin/sh\nexec '{sys.executable}' {start} \"$@\"\n", encoding="utf-8")
        script.chmod(0o755)
    return folder


def _write_labelled_images(folder: Path, numbers: dict[str, int]) -> None:
    """``CLASS/NAME.png`` with ``NAME_mask.png`` beside it, as many of each class as is said; none of two is alike."""
    seed = 0
    for class_name, number in numbers.items():
        (folder / class_name).mkdir(parents=True)
        for index in range(1, number + 1):
            seed += 1
            scan, mask = draw_scan(SIZE * 2, np.random.default_rng(seed))
            stem = folder / class_name / f"{class_name or 'scan'} ({index})"
            Image.fromarray(scan).save(stem.with_name(f"{stem.name}.png"))
            Image.fromarray(mask).convert("L").save(stem.with_name(f"{stem.name}_mask.png"))


#: A configuration of a reader's own, of which a page shows no text.
BASE = {
    "neural_network": {
        "layers": "layers_small_unet.json",
        "data": {
            "type": "images",
            "input_path": "data/train/inputs",
            "target_path": "data/train/targets",
            "test_input_path": "data/test/inputs",
            "test_target_path": "data/test/targets",
            "batch_size": 4,
            "target_grayscale": True,
            "target_is_mask": True,
            "transforms": [{"resize": [SIZE, SIZE]}],
        },
        "optimizer": {"type": "Adam"},
        "loss": {"function": "Dice"},
    }
}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for given: images as people get them, a data set, networks, the checkout's scripts."""
    folder = tmp_path_factory.mktemp("template")
    _write_labelled_images(folder / "Dataset_BUSI_with_GT", {"benign": 9, "malignant": 6, "normal": 3})
    _write_labelled_images(folder / "my_scans", {"": 12})
    names = [f"benign ({number})" for number in range(1, 10)] + [f"malignant ({number})" for number in range(1, 7)]
    lines = (f"{name},{'train' if number % 3 else 'test'}" for number, name in enumerate(names))
    (folder / "split3.csv").write_text("\n".join(["name,split", *lines]), encoding="utf-8")
    write_synthetic_data(folder / "data", num_train=14, num_test=4, size=SIZE, seed=1)
    write_synthetic_data(folder / "demo" / "data", num_train=4, num_test=2, size=SIZE, seed=2)
    shutil.copytree(folder / "data" / "test" / "inputs", folder / "new_images")
    for name in ("layers_small_unet.json", "layers_resunet.json"):
        shutil.copy(CHECKOUT / name, folder)
    (folder / "base.json").write_text(json.dumps(BASE), encoding="utf-8")
    (folder / "shared").mkdir()
    for name in ("rml_optimization.py", "benchmarks"):
        (folder / name).symlink_to(CHECKOUT / name)
    return folder


@pytest.fixture(scope="session")
def searched(template: Path, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a search."""
    folder = tmp_path_factory.mktemp("searched") / "study"
    shutil.copytree(template, folder, symlinks=True)
    options = "-nt 1 -ne 1 -o adam -l dice --layers layers_small_unet.json --batch-size 4 --seed 1 --runtime local"
    search = ["rml-optimization", *options.split(), "--image-size", str(SIZE), str(SIZE)]
    Sandbox(folder, programs).run("bash", "-c", " ".join(search))
    return folder


@pytest.fixture
def make_sandbox(request: pytest.FixtureRequest, programs: Path, tmp_path: Path) -> Callable[[str, bool], Sandbox]:
    """``make_sandbox(fixture, has_data)``: a copy of that folder of its own, with a data set or without."""

    def make(fixture: str, has_data: bool) -> Sandbox:
        folder = tmp_path / "a folder"
        shutil.copytree(request.getfixturevalue(fixture), folder, symlinks=True)
        if not has_data:
            shutil.rmtree(folder / "data")
        return Sandbox(folder, programs)

    return make
