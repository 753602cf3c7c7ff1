"""What the command line adds to the document. Without torch, so that errors need not wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

PrecisionChoice: TypeAlias = Literal["auto", "float32", "bf16"]

PRECISION_CHOICES: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)


@dataclass(frozen=True)
class Options:
    """How to compute what the document says.

    Attributes:
        seed: of initial weights, the order of samples, random transforms and dropout; 0 to 2^63 - 1.
        deterministic: take repeatable algorithms only, and refuse operations that have none.
        precision: the numbers that networks are computed with; ``auto`` is bf16 where the device has it.
        cuda_graphs: record the training step on a GPU and repeat it by one launch.
    """

    seed: int = 0
    deterministic: bool = False
    precision: PrecisionChoice = "auto"
    cuda_graphs: bool = False
