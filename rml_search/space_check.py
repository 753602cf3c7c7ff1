"""Whether every point of a search space gives a configuration, before a search spends a night on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from rml_search.errors import OptionError
from rml_search.hyperparameters import Hyperparameters, show_value
from rml_search.options import SearchOptions
from rml_search.paths import TrialPaths, Workspace
from rml_search.search_space import LOSS, OPTIMIZER, SEED, Dimension, SearchSpace, Value
from rml_search.trial_config import training_configuration
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_contract.names import unknown_name

#: Keys that a search gives its own values, since it must find what the engine writes.
_OWN = ("outfile", "num_epochs", "checkpoints.save", "checkpoints.interval", "data.test_output_path")
_OF_ANOTHER_SECTION = "this key does not belong here"


def check_space(options: SearchOptions, workspace: Workspace) -> None:
    """Tries the ends of each dimension with each optimizer and loss.

    What only certain values of several dimensions together exclude is not found here: such a trial fails.

    Raises:
        OptionError: a condition names what is not there, or a value gives no valid configuration.
    """
    space = options.space
    for dimension in space.others:
        _check_conditions(dimension, space)
        if dimension.path in {*_OWN, SEED} or dimension.path.split(".")[0] == "outfile":
            raise OptionError(f"--search-space: {dimension.path} is set by the search itself")
    if not space.others:
        return
    for point, dimension in _probes(space):
        try:
            training_configuration(options, Hyperparameters.from_point(point), TrialPaths(Path("trial")), workspace)
        except ConfigurationError as error:
            raise OptionError(_explain(str(error), point, dimension)) from None


def _check_conditions(dimension: Dimension, space: SearchSpace) -> None:
    for name, values in dimension.when:
        if name not in space.names:
            problem = unknown_name("hyperparameter", name, space.names)
            raise OptionError(f"--search-space: {dimension.name}: when: {problem}")
        domain = space[name].domain
        wrong = next((value for value in values if not domain.contains(value)), None)
        if wrong is not None:
            raise OptionError(
                f"--search-space: {dimension.name}: when: {name} is never {show_value(wrong)}: it is {domain}"
            )


def _probes(space: SearchSpace) -> Iterator[tuple[dict[str, Value], Dimension]]:
    """Points that differ from a plain one in one dimension, and that dimension, for each optimizer and loss."""
    for optimizer, loss in itertools.product(space[OPTIMIZER].domain.grid(), space[LOSS].domain.grid()):
        for dimension in space.others:
            for value in dimension.domain.ends():
                point = plain_point(space, {OPTIMIZER: optimizer, LOSS: loss, dimension.name: value})
                if dimension.name in point:
                    yield point, dimension


def plain_point(space: SearchSpace, wanted: dict[str, Value]) -> dict[str, Value]:
    """A point with the values that are wanted, and the first end of every other dimension that then is active."""
    point: dict[str, Value] = {}
    for dimension in space.dimensions:
        if dimension.is_active(point):
            point[dimension.name] = wanted.get(dimension.name, dimension.domain.ends()[0])
    return point


def _explain(message: str, point: dict[str, Value], dimension: Dimension) -> str:
    place = f"--search-space: {dimension.name} = {show_value(point[dimension.name])}"
    with_what = f"with the optimizer {point[OPTIMIZER]} and the loss {point[LOSS]}"
    advice = ""
    if _OF_ANOTHER_SECTION in message:
        advice = ', or only with other ones: say which, as in when = { optimizer = "sgd" }'
    return f"{place} {with_what}: {message.removeprefix('neural_network.')}{advice}"
