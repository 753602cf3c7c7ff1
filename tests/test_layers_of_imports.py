"""Which part of the project may import which, and that asking for help does not wait for heavy libraries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parent.parent

#: Part of the project -> the other parts that it may import.
ALLOWED_PARTS = {
    "rml_optimization": {"rml_commands", "rml_report", "rml_search", "rmldnn_contract"},
    "rml_commands": {
        "rml_optuna",
        "rml_report",
        "rml_search",
        "rml_shared",
        "rml_study",
        "rml_tracking",
        "rmldnn_contract",
    },
    "rml_report": {"rml_search", "rml_shared", "rml_study", "rmldnn_contract"},
    "rml_tracking": {"rml_optuna", "rml_search", "rmldnn_contract"},
    "rml_shared": {"rml_optuna", "rml_search", "rml_study", "rmldnn_contract"},
    "rml_optuna": {"rml_search", "rml_study", "rmldnn_contract"},
    "rml_study": {"rml_search", "rmldnn_contract"},
    "rml_search": {"rmldnn_contract"},
    "rmldnn_torch": {"rmldnn_contract"},
    "rmldnn_contract": set(),
}

#: Library -> the only parts, or modules of parts, that may import it.
OWNERS = {
    "cloudpickle": {"rml_search"},
    "docker": {"rml_search"},
    "jinja2": {"rml_search"},
    "mlflow": {"rml_tracking.mlflow_runs"},
    "optuna": {"rml_commands.status", "rml_optuna", "rml_report", "rml_shared", "rml_study"},
    "plotly": {"rml_report.plots"},
    "rich": {"rml_search"},
    "submitit": {"rml_search"},
    "tensorboard": {"rml_tracking.tensorboard_runs"},
    "torch": {"rmldnn_torch"},
    "typer": {"rml_commands.options", "rml_commands.program", "rml_optimization"},
}

#: Module that a person may do without -> the extra that brings what it imports beyond the driver's dependencies.
EXTRAS = {"rml_tracking.mlflow_runs": "mlflow", "rml_tracking.tensorboard_runs": "tensorboard"}

#: Libraries that take from a tenth of a second to seconds to import.
HEAVY = {
    "cloudpickle",
    "cv2",
    "docker",
    "h5py",
    "jinja2",
    "matplotlib",
    "mlflow",
    "optuna",
    "plotly",
    "rich",
    "scipy",
    "submitit",
    "tensorboard",
    "torch",
}


def _sources(part: str) -> list[Path]:
    """The files of a part, which is a package or a single module."""
    package = CHECKOUT / part.replace(".", "/")
    return sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]


def _imported_names(source: Path) -> Iterator[tuple[str, int]]:
    """Top-level names that a file imports anywhere, within functions and for type checkers too, with their lines."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name.partition(".")[0], node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0], node.lineno
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module.partition(".")[0], node.lineno
            case _:
                pass


def _violations(sources: Iterable[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{source.relative_to(CHECKOUT)}:{line} imports {name}"
        for source in sources
        for name, line in _imported_names(source)
        if name in forbidden
    ]


@pytest.mark.parametrize("part", ALLOWED_PARTS)
def test_a_part_imports_only_the_parts_that_it_stands_on(part: str) -> None:
    assert _violations(_sources(part), ALLOWED_PARTS.keys() - ALLOWED_PARTS[part] - {part}) == []


@pytest.mark.parametrize(("library", "owners"), OWNERS.items())
def test_its_owners_alone_import_a_library(library: str, owners: set[str]) -> None:
    owned = {source for owner in owners for source in _sources(owner)}
    assert _violations((s for part in ALLOWED_PARTS for s in _sources(part) if s not in owned), {library}) == []
    for owner in owners:
        assert _violations(_sources(owner), {library}), f"{owner} does not import {library}: is this rule out of date?"


def test_every_module_belongs_to_a_part() -> None:
    parts = {
        path.relative_to(CHECKOUT).parts[0].removesuffix(".py") for path in CHECKOUT.glob("rml*") if path != CHECKOUT
    }
    assert {part for part in parts if _sources(part)[0].is_file()} == ALLOWED_PARTS.keys()


def _normalized(distribution: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imported_distributions(sources: Iterable[Path]) -> set[str]:
    """Names of the distributions that hold what these files import, beside Python and the project itself."""
    names = {name for source in sources for name, _ in _imported_names(source)}
    holders = packages_distributions()
    # tomli stands in for a module of newer Pythons, and is not installed there.
    return {
        _normalized(holders.get(name, [name])[0]) for name in names - sys.stdlib_module_names - ALLOWED_PARTS.keys()
    }


def test_dependencies_list_all_that_is_imported() -> None:
    """The driver installs without the engine's extra, a cluster's apart; the image installs that extra and no more."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def listed(requirements: list[str]) -> set[str]:
        return {_normalized(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in requirements}

    def sources(*parts: str) -> set[Path]:
        return {source for part in parts for source in _sources(part)}

    driver = sources(*ALLOWED_PARTS.keys() - {"rmldnn_torch"}) - sources(*EXTRAS)
    cluster = listed(project["optional-dependencies"]["slurm"])
    assert _imported_distributions(driver) == listed(project["dependencies"]) | cluster
    engine = sources("rmldnn_contract", "rmldnn_torch")
    assert _imported_distributions(engine) == listed(project["optional-dependencies"]["engine"])
    for module, extra in EXTRAS.items():
        assert _imported_distributions(_sources(module)) == listed(project["optional-dependencies"][extra])


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import torch.nn as nn\n"
        "from typer import Option\n"
        "from . import torch\n"
        "def late():\n"
        "    from optuna.trial import Trial\n"
        "    return importlib.import_module('docker.errors'), import_module('cv2')\n",
        encoding="utf-8",
    )
    assert sorted(_imported_names(source)) == [("cv2", 6), ("docker", 6), ("optuna", 5), ("torch", 1), ("typer", 2)]


def _loaded_modules(*arguments: str) -> set[str]:
    """Top-level names of everything that a Python process imports, by Python's own account."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr[-1000:]
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", process.stderr, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("arguments", "light"),
    [
        (("-c", "import rmldnn_contract.config"), "pydantic"),
        (("-c", "import rml_optimization"), "typer"),
        (("rml_optimization.py", "--help"), "typer"),
    ],
    ids=["contract", "driver", "help"],
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...], light: str) -> None:
    loaded = _loaded_modules(*arguments)
    assert light in loaded
    assert loaded & HEAVY == set()
