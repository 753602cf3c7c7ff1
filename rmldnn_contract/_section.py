"""What the JSON objects of the document have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

from rmldnn_contract.names import canonical_name, unknown_name

NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
BelowOne: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
#: A number of pixels, samples or epochs: from 1 to what OpenCV and other libraries can count.
Count: TypeAlias = Annotated[int, Field(gt=0, lt=2**31)]


def _path(text: str) -> str:
    try:
        is_possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_possible = False
    if not text or not is_possible:
        raise ValueError(f"{text!r} cannot be a path")
    return text


def _path_of_a_file(text: str) -> str:
    if Path(text).name in {"", ".."}:
        raise ValueError(f"{text!r} names nothing that could be written")
    return text


PathText: TypeAlias = Annotated[str, AfterValidator(_path)]
FilePathText: TypeAlias = Annotated[PathText, AfterValidator(_path_of_a_file)]


class Section(BaseModel):
    """A JSON object of the document: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TypedSection(Section):
    """A JSON object whose ``type`` says which other keys it may have."""

    type: str


def any_case(kind: str, known: Iterable[str]) -> BeforeValidator:
    """Accepts the ``known`` names in any case, and names the nearest one for any other."""
    names = tuple(known)

    def canonical(value: object) -> object:
        if not isinstance(value, str):
            return value
        name = canonical_name(value, names)
        if name is None:
            raise ValueError(unknown_name(kind, value, names))
        return name

    return BeforeValidator(canonical)


def by_type(known: Iterable[str]) -> Discriminator:
    """Picks the member of a tagged union by its ``type``, in any case."""
    names = tuple(known)

    def tag(value: object) -> str | None:
        name = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        return canonical_name(name, names) if isinstance(name, str) else None

    return Discriminator(tag)


def has_known_type(kind: str, known: Iterable[str]) -> BeforeValidator:
    """Refuses, in words, what :func:`by_type` cannot place. A discriminator cannot raise errors itself."""
    names = tuple(known)

    def check(value: Any) -> Any:
        if value is None or isinstance(value, Section):
            return value
        name = value.get("type") if isinstance(value, Mapping) else None
        if not isinstance(name, str):
            raise ValueError(f'{kind} must be an object with a "type", one of {", ".join(names)}')
        if canonical_name(name, names) is None:
            raise ValueError(unknown_name(kind, name, names))
        return value

    return BeforeValidator(check)
