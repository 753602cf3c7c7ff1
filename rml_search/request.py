"""From what a person said on the command line to the options of a search: defaults, their own configuration, the file
of the search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rml_search.errors import OptionError
from rml_search.options import (
    LOSS_NAMES,
    OPTIMIZER_NAMES,
    Objective,
    SearchOptions,
    parse_layers,
    parse_names,
    parse_objectives,
)
from rml_search.search_space import LAYERS, LEARNING_RATE, LOSS, OPTIMIZER, Dimension

if TYPE_CHECKING:
    from rml_search.base_config import BaseConfig

Value = TypeVar("Value")

_LR_RANGE = (0.001, 0.01)


@dataclass(frozen=True)
class _Defaults:
    """What holds where a person says nothing: the tutorial's, or what their own configuration has."""

    num_epochs: int | None = None
    optimizer: str | None = None
    loss: str | None = None
    layers: tuple[Path, ...] = (Path("./layers.json"),)
    data: Path | None = Path("./data")
    learning_rate: float | None = None
    batch_size: int = 32
    test_batch_size: int = 64
    image_size: tuple[int, int] | None = (256, 256)

    @classmethod
    def of(cls, base: BaseConfig) -> _Defaults:
        """Those of a person's own configuration."""
        network = base.configuration.neural_network
        return cls(
            num_epochs=network.num_epochs,
            optimizer=base.optimizer,
            loss=base.loss,
            layers=() if base.layers_file is None else (base.layers_file,),
            data=None,
            learning_rate=base.learning_rate,
            batch_size=network.data.batch_size,
            test_batch_size=network.data.test_batch_size,
            image_size=None,
        )


@dataclass(frozen=True)
class SearchRequest:
    """What a person said, each by its option; None where they said nothing."""

    num_trials: int | None = None
    num_epochs: int | None = None
    optimizers: str | None = None
    loss: str | None = None
    layers: str | None = None
    data: Path | None = None
    lr_range_min: float | None = None
    lr_range_max: float | None = None
    lr_scheduler_gamma: float | None = None
    transfer_learning: Path | None = None
    batch_size: int | None = None
    test_batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    num_procs: int = 1
    seed: int | None = None
    config: Path | None = None
    search_space: Path | None = None
    objective: str = Objective.ACCURACY.value
    validation_fraction: float | None = None

    def resolve(self) -> SearchOptions:
        """The options of the search.

        Raises:
            OptionError: one is missing, or given in two ways.
            ConfigurationError, DataSetError: the configuration of ``--config`` cannot be used.
        """
        from rml_search.base_config import read_base_config
        from rml_search.space_file import read_search_space

        dimensions = () if self.search_space is None else read_search_space(self.search_space)
        given = {dimension.name: dimension for dimension in dimensions}
        base = None if self.config is None else read_base_config(self.config)
        own = _Defaults() if base is None else _Defaults.of(base)
        return SearchOptions(
            num_trials=_required("--num-trials", self.num_trials),
            num_epochs=_required("--num-epochs", self.num_epochs, own.num_epochs),
            optimizers=self._names(OPTIMIZER, "--optimizers", self.optimizers, given, own.optimizer),
            losses=self._names(LOSS, "--loss", self.loss, given, own.loss),
            layers=self._layers(given, own.layers),
            data=self.data or own.data,
            lr_range=self._lr_range(given, own.learning_rate),
            lr_scheduler_gamma=self.lr_scheduler_gamma,
            transfer_learning=self.transfer_learning,
            batch_size=own.batch_size if self.batch_size is None else self.batch_size,
            test_batch_size=own.test_batch_size if self.test_batch_size is None else self.test_batch_size,
            image_size=self.image_size or own.image_size,
            num_procs=self.num_procs,
            seed=self.seed,
            base=base,
            dimensions=tuple(dimension for dimension in dimensions if dimension.name != LAYERS),
            objectives=parse_objectives(self.objective),
            validation_fraction=self.validation_fraction,
        )

    def _names(
        self, name: str, option: str, text: str | None, given: Mapping[str, Dimension], own: str | None
    ) -> tuple[str, ...]:
        if name in given:
            _only_once(option, text, name)
            return tuple(map(str, given[name].domain.grid()))
        known = OPTIMIZER_NAMES if name == OPTIMIZER else LOSS_NAMES
        return parse_names(option, name, _required(option, text, own), known)

    def _layers(self, given: Mapping[str, Dimension], own: tuple[Path, ...]) -> tuple[Path, ...]:
        if LAYERS in given:
            _only_once("--layers", self.layers, LAYERS)
            return tuple(Path(str(value)) for value in given[LAYERS].domain.grid())
        return own if self.layers is None else parse_layers(self.layers)

    def _lr_range(self, given: Mapping[str, Dimension], own: float | None) -> tuple[float, float]:
        """With a configuration of the person's own its learning rate stays, unless they name a range."""
        low, high = self.lr_range_min, self.lr_range_max
        if LEARNING_RATE in given:
            _only_once("--lr-range-min or --lr-range-max", low or high, LEARNING_RATE)
            ends = [float(value) for value in given[LEARNING_RATE].domain.ends()]
            return (min(ends), max(ends))
        if own is not None and low is None and high is None:
            return (own, own)
        return (_LR_RANGE[0] if low is None else low, _LR_RANGE[1] if high is None else high)


def _required(option: str, *values: Value | None) -> Value:
    for value in values:
        if value is not None:
            return value
    raise OptionError(f"{option} is missing; see --help")


def _only_once(option: str, value: object, name: str) -> None:
    if value is not None:
        raise OptionError(f"{option} and {name} in the --search-space file set the same thing: remove one")
