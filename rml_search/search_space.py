"""The search space: what may be tried, as dimensions of a point, some of them only where others have certain values.

A point is a mapping from the names of dimensions to values: numbers, texts or truth values, as Optuna stores them. A
value of a dimension is not always what the configuration document gets (see :class:`Choices`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = "str | int | float | bool"
Point: TypeAlias = Mapping[str, Value]

#: The dimensions that every search has, and where the document has them.
OPTIMIZER, LOSS, LEARNING_RATE = "optimizer", "loss", "learning_rate"
LAYERS = "layers"
#: No key of the document: what the engine begins its random numbers with, where trials are trained again.
SEED = "seed"
PATHS = {OPTIMIZER: "optimizer.type", LOSS: "loss.function", LEARNING_RATE: "optimizer.learning_rate", LAYERS: "layers"}

#: Numbers that agree within this part of their range, or of themselves on a logarithmic scale, are the same point.
SAME_PART = 0.005

_GRID_POINTS = 5


@dataclass(frozen=True)
class Choices:
    """One of some values. ``document`` holds what the document gets for those labels that only stand for it."""

    values: tuple[Value, ...]
    document: tuple[Any, ...] = ()

    def contains(self, value: object) -> bool:
        """Whether it is one of them; 1 is not True."""
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values)

    def in_document(self, value: Value) -> Any:
        """What the document gets for a value."""
        return self.document[self.values.index(value)] if self.document else value

    def is_same(self, value: Value, other: Value) -> bool:
        """Whether two values are one."""
        return value == other

    def grid(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def ends(self) -> tuple[Value, ...]:
        """What to try to know whether all would do."""
        return self.values

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class FloatRange:
    """A number from ``low`` to ``high``, on a logarithmic scale or in steps if so wished."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: object) -> bool:
        """Whether it is a number of the range, steps aside."""
        return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator]  # a number by now

    def in_document(self, value: Value) -> Any:
        """The number."""
        return value

    def is_same(self, value: Value, other: Value) -> bool:
        """Whether two numbers agree within ``SAME_PART``."""
        return _distance(float(value), float(other), self) < _tolerance(self)

    def grid(self) -> tuple[Value, ...]:
        """All steps; without steps five numbers at equal distances (logarithmic: in equal ratios), ends included."""
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9)
            return tuple(self.low + index * self.step for index in range(count + 1))
        return spread(self.low, self.high, log=self.log)

    def ends(self) -> tuple[Value, ...]:
        """The least and the largest."""
        return (self.low, self.high)

    def __str__(self) -> str:
        return _describe_range(self)


@dataclass(frozen=True)
class IntRange:
    """A whole number from ``low`` to ``high``, in steps, or on a logarithmic scale."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def contains(self, value: object) -> bool:
        """Whether it is a whole number of the range that the steps reach."""
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and self.low <= value <= self.high and (value - self.low) % self.step == 0  # type: ignore[operator]  # a number by now

    def in_document(self, value: Value) -> Any:
        """The number."""
        return value

    def is_same(self, value: Value, other: Value) -> bool:
        """Whether two numbers are one."""
        return value == other

    def grid(self) -> tuple[Value, ...]:
        """All numbers, or of more than five, five that lie apart; on a logarithmic scale in equal ratios."""
        numbers = range(self.low, self.high + 1, self.step)
        if len(numbers) <= _GRID_POINTS:
            return tuple(numbers)
        wanted = spread(self.low, numbers[-1], log=self.log)
        return tuple(dict.fromkeys(min(numbers, key=lambda number: abs(number - near)) for near in wanted))

    def ends(self) -> tuple[Value, ...]:
        """The least and the largest."""
        return (self.low, self.high)

    def __str__(self) -> str:
        return _describe_range(self)


Domain: TypeAlias = "Choices | FloatRange | IntRange"


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter.

    Attributes:
        name: as the study and ``list_acc.json`` have it.
        path: its key in the document's section ``neural_network``, with dots.
        when: names of other dimensions with the values at which this one is tried; all must hold.
    """

    name: str
    path: str
    domain: Domain
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    def is_active(self, point: Point) -> bool:
        """Whether a point with these values has a value of this dimension."""
        return all(point.get(name) in values for name, values in self.when)


@dataclass(frozen=True)
class SearchSpace:
    """Dimensions, each after those that its conditions name."""

    dimensions: tuple[Dimension, ...]

    def __getitem__(self, name: str) -> Dimension:
        """The dimension of that name; raises KeyError."""
        for dimension in self.dimensions:
            if dimension.name == name:
                return dimension
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All dimensions, in the order in which their values are drawn."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def others(self) -> tuple[Dimension, ...]:
        """All dimensions beside optimizer, loss and learning rate."""
        return tuple(dim for dim in self.dimensions if dim.name not in {OPTIMIZER, LOSS, LEARNING_RATE})

    @property
    def is_finite(self) -> bool:
        """Whether it consists of points that can be counted: choices, whole numbers and steps."""
        return all(
            not isinstance(domain, FloatRange) or domain.step is not None or domain.low == domain.high
            for domain in (dimension.domain for dimension in self.dimensions)
        )

    def active(self, point: Point) -> Iterator[Dimension]:
        """The dimensions of which a point with these values has one."""
        return (dimension for dimension in self.dimensions if dimension.is_active(point))

    def is_whole(self, point: Point) -> bool:
        """Whether a point has a value of every dimension that it should have one of."""
        return all(dimension.name in point for dimension in self.active(point))

    def is_same(self, point: Point, other: Point) -> bool:
        """Whether two points are one, within rounding."""
        if point.keys() != other.keys():
            return False
        return all(self[name].domain.is_same(value, other[name]) for name, value in point.items())

    def grid(self, *, every_number: bool = False) -> list[dict[str, Value]]:
        """All points of a grid over the space; ``every_number``: with all whole numbers, not some of a large range."""
        points: list[dict[str, Value]] = [{}]
        for dimension in self.dimensions:
            values = _all_numbers(dimension.domain) if every_number else dimension.domain.grid()
            points = list(
                itertools.chain.from_iterable(
                    [{**point, dimension.name: value} for value in values] if dimension.is_active(point) else [point]
                    for point in points
                )
            )
        return points

    def num_points(self) -> float:
        """An upper bound of the number of points, without listing them; infinite where there is a range of numbers."""
        if not self.is_finite:
            return math.inf
        return math.prod(len(_all_numbers(dimension.domain)) for dimension in self.dimensions)


def spread(low: float, high: float, count: int = _GRID_POINTS, *, log: bool) -> tuple[float, ...]:
    """Numbers at equal distances, or in equal ratios, both ends among them."""
    if low == high:
        return (low,)
    shares = [index / (count - 1) for index in range(1, count - 1)]
    inner = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    return (low, *inner, high)


def _all_numbers(domain: Domain) -> Sequence[Value]:
    if isinstance(domain, IntRange):
        return range(domain.low, domain.high + 1, domain.step)
    return domain.grid()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distance(value: float, other: float, domain: FloatRange) -> float:
    return abs(math.log(value / other)) if domain.log else abs(value - other)


def _tolerance(domain: FloatRange) -> float:
    return math.log1p(SAME_PART) if domain.log else max(SAME_PART * (domain.high - domain.low), 1e-12)


def _describe_range(domain: FloatRange | IntRange) -> str:
    if domain.low == domain.high:
        return f"{domain.low:g}"
    step = f", in steps of {domain.step:g}" if domain.step not in {None, 1} else ""
    return f"{domain.low:g} to {domain.high:g}{', log-uniform' if domain.log else ''}{step}"
