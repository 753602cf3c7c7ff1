"""A person's own rmldnn configuration as the ground of a search (``--config``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rml_search.errors import DataSetError, OptionError
from rmldnn_contract.config import Configuration, read_configuration

#: Where the document names what it reads.
INPUT_KEYS = ("input_path", "target_path", "test_input_path", "test_target_path")

_DEFAULT_LEARNING_RATE = 0.01  # every optimizer's (contract, section 4)


@dataclass(frozen=True)
class BaseConfig:
    """A configuration that trains and evaluates; a search changes in it only what it searches."""

    path: Path
    configuration: Configuration

    @property
    def network(self) -> dict[str, Any]:
        """A copy of its section ``neural_network``, as it was written."""
        document = self.configuration.model_dump(mode="json", exclude_unset=True)
        section: dict[str, Any] = document["neural_network"]
        return section

    @property
    def optimizer(self) -> str:
        """The name of its optimizer, in lower case."""
        optimizer = self.configuration.neural_network.optimizer
        return "" if optimizer is None else optimizer.type.lower()

    @property
    def loss(self) -> str:
        """The name of its loss, in lower case."""
        loss = self.configuration.neural_network.loss
        return "" if loss is None else loss.function.lower()

    @property
    def learning_rate(self) -> float:
        """Its learning rate, or the one that is meant where it says none."""
        rate = getattr(self.configuration.neural_network.optimizer, "learning_rate", None)
        return _DEFAULT_LEARNING_RATE if rate is None else float(rate)

    @property
    def layers_file(self) -> Path | None:
        """Its network file; None where the network stands in the document itself."""
        layers = self.configuration.neural_network.layers
        return Path(layers) if isinstance(layers, str) else None

    @property
    def layers_text(self) -> str:
        """The network that stands in the document itself, as JSON."""
        return json.dumps(self.configuration.neural_network.layers)

    def data_paths(self) -> list[Path]:
        """The files and folders that it reads samples from."""
        data = self.configuration.neural_network.data
        return [Path(value) for key in INPUT_KEYS if (value := getattr(data, key)) is not None]


def read_base_config(path: Path) -> BaseConfig:
    """Reads the configuration that a search starts from.

    Raises:
        ConfigurationError: the file is missing or not valid.
        OptionError: it does not train, or evaluates nothing.
        DataSetError: a file or folder of its data is missing.
    """
    base = BaseConfig(path, read_configuration(path))
    data = base.configuration.neural_network.data
    for key in ("input_path", "test_input_path"):
        if getattr(data, key) is None:
            raise OptionError(f"--config: {path} has no data.{key}: a search needs training and test data")
    missing = next((folder for folder in base.data_paths() if not folder.exists()), None)
    if missing is not None:
        raise DataSetError(f"--config: {path} names {missing}, which does not exist")
    return base
