"""Where else than in its own files a search shall log its trials."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rml_search.addresses import without_password
from rml_search.errors import OptionError

#: What MLflow takes as a tracking URI, but for folders.
_MLFLOW_ADDRESS = re.compile(r"databricks(-uc)?(://.+)?|https?://[^/].*|(sqlite|postgresql|mysql|mssql)(\+\w+)?://.+")


@dataclass(frozen=True)
class TrackingChoice:
    """What ``--tensorboard`` and ``--mlflow`` name; None: nothing is logged there.

    Attributes:
        tensorboard: the folder that ``tensorboard --logdir`` is given.
        mlflow: the address of a tracking server, or of a database.
    """

    tensorboard: Path | None = None
    mlflow: str | None = None

    def __post_init__(self) -> None:
        if self.tensorboard is not None:
            _need("--tensorboard", "tensorboard")
            if self.tensorboard.exists() and not self.tensorboard.is_dir():
                raise OptionError(f"--tensorboard: {self.tensorboard} is not a folder")
        if self.mlflow is not None:
            _need("--mlflow", "mlflow")
            if not _MLFLOW_ADDRESS.fullmatch(self.mlflow):
                raise OptionError(
                    f"--mlflow: {without_password(self.mlflow)!r} is not http://HOST:PORT or a database such as "
                    "sqlite:///mlflow.db; MLflow no longer supports folders"
                )


def _need(option: str, package: str) -> None:
    """Raises OptionError where a package is missing; its name is also that of the extra."""
    if find_spec(package) is None:
        raise OptionError(f"{option} needs the package {package}: pip install 'rml-optimization[{package}]'")
