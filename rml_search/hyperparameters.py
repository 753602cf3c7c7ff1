"""What a trial is tried with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rml_search.search_space import LEARNING_RATE, LOSS, OPTIMIZER, Point, Value


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the search space.

    ``optimizer`` and ``loss`` are lower-case names; ``others`` holds the names and values of all other dimensions that
    this point has a value of, in the order of the search space.
    """

    optimizer: str
    loss: str
    learning_rate: float
    others: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def from_point(cls, point: Point) -> Hyperparameters:
        """The hyperparameters of a point, which has an optimizer, a loss and a learning rate at the least."""
        usual = {OPTIMIZER, LOSS, LEARNING_RATE}
        others = tuple((name, value) for name, value in point.items() if name not in usual)
        return cls(str(point[OPTIMIZER]), str(point[LOSS]), float(point[LEARNING_RATE]), others)

    @property
    def point(self) -> dict[str, Any]:
        """All of them by name, as :meth:`from_point` takes them."""
        usual = {OPTIMIZER: self.optimizer, LOSS: self.loss, LEARNING_RATE: self.learning_rate}
        return {**usual, **dict(self.others)}

    def __str__(self) -> str:
        others = "".join(f", {name} {show_value(value)}" for name, value in self.others)
        return f"{self.optimizer}, {self.loss}, learning rate {self.learning_rate:.3g}{others}"


def show_value(value: Value) -> str:
    """A value for people: numbers with three digits, truth values as JSON has them."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
