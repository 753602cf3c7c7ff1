"""What a trial is tried with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the search space; ``optimizer`` and ``loss`` are lower-case names."""

    optimizer: str
    loss: str
    learning_rate: float

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.loss}, learning rate {self.learning_rate:.3g}"
