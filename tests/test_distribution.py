"""What ``python -m build`` makes: archives that hold what they should, and a wheel that works outside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from rmldnn_contract import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = [path.parent.name for path in CHECKOUT.glob("rml*/__init__.py")]

#: The demo's numbers made small, and then the installed program as it is.
SMALL_DEMO = """
import runpy, sys
import rml_search.demo as demo
demo.IMAGE_SIZE, demo.NUM_TRAIN, demo.NUM_TEST, demo.NUM_TRIALS, demo.NUM_EPOCHS = 32, 16, 4, 2, 1
sys.argv = [sys.argv[1], "demo"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Archives:
    """What was built."""

    wheel: Path
    source: Path


def run(*command: object, cwd: Path) -> str:
    """Runs it, expects it to end well, and returns what it has printed."""
    answer = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The source archive, and the wheel that is built from that, as a release builds them."""
    pytest.importorskip("build", reason="the extra release is not installed")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Archives(wheel, source)


def test_the_names_tell_the_version(archives):
    assert archives.wheel.name == f"rml_optimization-{__version__}-py3-none-any.whl"
    assert archives.source.name == f"rml_optimization-{__version__}.tar.gz"


def test_the_wheel_holds_all_modules_with_their_files_and_nothing_else(archives):
    with zipfile.ZipFile(archives.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = {path.name for path in CHECKOUT.glob("rml_*.py")}
    ours |= {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == ours


def test_the_source_archive_holds_what_one_builds_and_checks_with(archives):
    with tarfile.open(archives.source) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    wanted = {"README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst", "LICENSE", "Makefile", "Dockerfile", "constraints.txt"}
    wanted |= {"layers_resunet.json", "layers_small_unet.json", "pyproject.toml", "docs/conf.py", "docs/tutorial.rst"}
    wanted |= {"tests/conftest.py", "tests/test_distribution.py", "benchmarks/replay.py", "rml_search/paths.py"}
    assert wanted - names == set()
    unwanted = (".ci", "wheels", ".venv", ".git/", "build", "data", "demo", "trials")
    assert [name for name in names if name.startswith(unwanted) or "__pycache__" in name] == []


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that has the wheel, and sees the dependencies that the tests run with."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    programs = folder / "bin"
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", archives.wheel, cwd=folder)
    # Only the folder: an editable installation that lies in it does not count.
    paths = run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    (Path(paths.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return programs


def test_the_installed_program_runs_the_demo_outside_the_checkout(installed, tmp_path):
    assert run(installed / "rml-optimization", "--version", cwd=tmp_path).split() == ["rml-optimization", __version__]
    where = run(installed / "python", "-c", "import rml_search, rmldnn_torch; print(rml_search.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    output = run(installed / "python", "-c", SMALL_DEMO, installed / "rml-optimization", cwd=tmp_path)
    assert "| Best hyperparameters" in output
    assert "| Inference" in output
    demo = tmp_path / "demo"
    assert [trial["state"] for trial in json.loads((demo / "list_acc.json").read_text())] == ["complete"] * 2
    assert (demo / "gallery.png").stat().st_size > 10_000
    assert (demo / "report" / "report.html").stat().st_size > 100_000


def test_the_installed_engine_is_a_program_of_its_own(installed, tmp_path):
    assert "--config" in run(installed / "rmldnn", "--help", cwd=tmp_path)
