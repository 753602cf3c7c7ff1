"""How a search was begun: what a person needs to repeat it, kept in the study each time that it begins or goes on."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rml_search.addresses import without_password
from rml_search.options import ENGINE_VARIABLES
from rmldnn_contract import __version__

#: Begins the names of the study's attributes that hold these records; the time follows.
RUN_PREFIX = "run "

#: A password in an address: after the user's name, or among the settings after the question mark.
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^@\s]*(?=@)")
_PASSWORD_SETTING = re.compile(r"([?&][^=&\s]*passw[^=&\s]*)=[^&\s]*", re.IGNORECASE)

_LIBRARIES = ("optuna", "torch", "numpy", "opencv-python-headless", "h5py", "docker")


@dataclass(frozen=True)
class RunRecord:
    """One start of a search.

    Attributes:
        command: as it can be typed in a shell again.
        started: in ISO 8601, UTC.
        versions: of the program, of Python and of the libraries that matter to results, where installed.
        machine: what the driver ran on, by name.
        settings: (name, value) as the first table of the search shows them.
    """

    command: str
    started: str
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Under which the study keeps it: every start has its own, so that nobody rewrites another's."""
        return RUN_PREFIX + self.started

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def describe_run(arguments: Sequence[str], settings: Sequence[tuple[str, str]]) -> RunRecord:
    """This run of the program; ``arguments`` begin with the program's name, as ``sys.argv`` does."""
    return RunRecord(
        command=_command(arguments),
        started=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        versions=_versions(),
        machine=_machine(),
        settings=tuple((name, value) for name, value in settings),
    )


def read_runs(attributes: Mapping[str, Any]) -> tuple[RunRecord, ...]:
    """The records among the attributes of a study, oldest first; what another version wrote otherwise is left out."""
    runs = []
    for _, value in sorted(item for item in attributes.items() if item[0].startswith(RUN_PREFIX)):
        try:
            runs.append(TypeAdapter(RunRecord).validate_python(value))
        except ValidationError:
            continue
    return tuple(runs)


def _command(arguments: Sequence[str]) -> str:
    program, *rest = (_without_password(argument) for argument in arguments)
    # `python rml_optimization.py`, or the program's name where it is installed.
    start = ["python", program] if Path(program).suffix == ".py" else [Path(program).name]
    variables = [f"{name}={shlex.quote(os.environ[name])}" for name in ENGINE_VARIABLES if name in os.environ]
    return " ".join([*variables, shlex.join([*start, *map(without_password, rest)])])


def _without_password(argument: str) -> str:
    """What many may read, such as all who see the study."""
    return _PASSWORD_SETTING.sub(r"\1=***", _PASSWORD.sub(r"\1:***", argument))


def _versions() -> dict[str, str]:
    versions = {"rml-optimization": __version__, "Python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def _machine() -> dict[str, str]:
    return {
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Processor": _processor(),
        "Cores for this program": str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()),
    }


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
