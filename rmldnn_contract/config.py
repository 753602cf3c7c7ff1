"""The configuration document of rmldnn: one JSON object, read once into frozen models.

Keys, defaults and meanings follow RocketML's published documentation. An unknown key is an error that
names the nearest known one: a misspelled key that is ignored costs a night of training. Type names
(``adam``, ``Adam``) are accepted in any case and kept in the documentation's spelling.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from typing_extensions import Self

from rmldnn_contract._section import Count, FilePathText, NonNegative, PathText, Section, any_case
from rmldnn_contract.data import Data, Slicer
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_contract.names import canonical_name, nearest_name
from rmldnn_contract.optimizer import OPTIMIZERS, SCHEDULERS, Optimizer

LossName: TypeAlias = Literal["NLL", "BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz"]
SourceName: TypeAlias = Literal["sigmoid", "softmax", "log_softmax"]
LOSSES: tuple[str, ...] = get_args(LossName)
APPLICATION_LOSSES = ("Wasserstein", "YOLOv3", "Burgers_pde", "Poisson2D_pde", "Poisson3D_pde")


def _loss_name(value: object) -> object:
    if isinstance(value, str) and (name := canonical_name(value, APPLICATION_LOSSES)):
        raise ValueError(f"{name} belongs to an application that is started with --app; use one of {', '.join(LOSSES)}")
    return value


class Loss(Section):
    """The loss function, and the final activation of the network.

    ``source`` is the final activation of the network: ``sigmoid`` (independent probabilities for each class),
    ``softmax`` (probabilities that sum to 1) or ``log_softmax`` (their logarithms). If absent, it is inferred
    from the last layer of the network.
    """

    function: Annotated[LossName, any_case("loss", LOSSES), BeforeValidator(_loss_name)]
    source: Annotated[SourceName, any_case("source", get_args(SourceName))] | None = None
    weight: tuple[NonNegative, ...] | None = None
    #: Masks pass through float32 on their way, which holds whole numbers up to 2^24.
    ignore_index: Annotated[int, Field(ge=-(2**24), le=2**24)] | None = None


class Checkpoints(Section):
    """Where and how often checkpoints are saved, and which file is loaded before the first epoch."""

    save: PathText | None = None
    interval: Count = 1
    load: PathText | None = None


class NeuralNetwork(Section):
    """The top-level object of the document."""

    outfile: FilePathText | None = None
    num_epochs: Count = 1
    layers: str | list[dict[str, Any]]
    checkpoints: Checkpoints = Checkpoints()
    data: Data
    optimizer: Optimizer | None = None
    loss: Loss | None = None
    debug: bool = False
    debug_interval: Count = 1

    @model_validator(mode="after")
    def _training_is_complete(self) -> Self:
        if self.data.input_path is None and self.data.test_input_path is None:
            raise ValueError("data has neither input_path nor test_input_path: there is nothing to do")
        if self.data.input_path is not None:
            for key in ("optimizer", "loss"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing, and data.input_path asks for training")
        return self


class Configuration(Section):
    """A whole configuration document."""

    neural_network: NeuralNetwork

    def to_json(self) -> str:
        """The document as JSON text, with only the keys that were given, in their order."""
        return json.dumps(self.model_dump(mode="json", exclude_unset=True), indent=4) + "\n"


def read_configuration(path: Path) -> Configuration:
    """Reads a configuration document.

    Raises:
        ConfigurationError: the file is missing or unreadable, is not JSON, or holds a key or value that
            a configuration cannot hold.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}") from None
    try:
        return parse_configuration(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def parse_configuration(text: str) -> Configuration:
    """Parses a configuration document; raises ConfigurationError with one line for the first fault."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not a JSON document: {error}") from None
    try:
        return Configuration.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(describe_validation_error(error)) from None


def describe_validation_error(error: ValidationError) -> str:
    """One line for the first fault of a document: where, what, and how many more there are."""
    faults = error.errors(include_url=False, include_context=False)
    fault = faults[0]
    location = _location(fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = _unknown_key(str(fault["loc"][-1]))
    elif fault["type"] == "missing":
        message = "is missing"
    elif message.startswith(_PYDANTIC):
        kind = fault["type"].partition("_")[0]
        message = f"must be {_KINDS.get(kind) or message.removeprefix(_PYDANTIC)}{_but_is(fault['input'])}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{location}: {message}{more}" if location else f"{message}{more}"


_PYDANTIC = "Input should be "
_SHORT = 40
#: In JSON's words, what pydantic says in Python's; by what its names of such faults begin with.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}


def _but_is(value: object) -> str:
    """What stands there instead, where it is short."""
    text = json.dumps(value, ensure_ascii=False) if value is None or isinstance(value, bool | int | float | str) else ""
    return f", not {text}" if 0 < len(text) <= _SHORT else ""


# Members of tagged unions have their tag in the location of a fault, which is no key of the document.
_TAGS = frozenset({*OPTIMIZERS, *SCHEDULERS, "str", "list[dict[str,any]]"})


def _location(parts: tuple[int | str, ...]) -> str:
    keys = [str(part) for part in parts if part not in _TAGS]
    # A transform's tag is its key, so that the key stands twice.
    return ".".join(key for key, before in zip(keys, [None, *keys], strict=False) if key != before)


def _unknown_key(key: str) -> str:
    known = _known_keys()
    if key in known:
        return "this key does not belong here"
    nearest = nearest_name(key, known)
    return "unknown key" + (f"; did you mean {nearest!r}?" if nearest else "")


def _known_keys() -> list[str]:
    sections: list[type[Section]] = [Configuration, NeuralNetwork, Data, Checkpoints, Loss, Slicer]
    sections += [*OPTIMIZERS.values(), *SCHEDULERS.values()]
    return sorted({key for section in sections for key in section.model_fields})
