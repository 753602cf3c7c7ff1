"""A look at the values in the masks of a data set: what counts as lesion depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rml_search.images import read_image, to_grey, to_mask

_NUM_VALUES_NAMED = 4


@dataclass(frozen=True)
class MaskSurvey:
    """The grey levels (0 to 255) of some masks, ascending, and how many of these masks have no lesion."""

    num_masks: int
    num_empty: int
    values: tuple[int, ...]

    @property
    def has_lesions(self) -> bool:
        """Whether any of these masks has one."""
        return self.num_empty < self.num_masks

    def __str__(self) -> str:
        if len(self.values) <= _NUM_VALUES_NAMED:
            levels = f"values {', '.join(map(str, self.values))}"
        else:
            levels = f"{len(self.values)} grey levels, {self.values[0]} to {self.values[-1]}"
        return f"{levels}; {self.num_empty} of {self.num_masks} checked are empty"


def survey_masks(masks: Sequence[Path], at_most: int = 40) -> MaskSurvey:
    """Reads ``at_most`` of the masks, at even distances in the list.

    Raises:
        DataSetError: one cannot be read.
    """
    chosen = sorted(set(np.linspace(0, len(masks) - 1, min(at_most, len(masks))).round().astype(int).tolist()))
    values: set[int] = set()
    num_empty = 0
    for path in (masks[index] for index in chosen):
        image = read_image(path, str(path))
        values.update(np.unique(to_grey(image)).tolist())
        num_empty += not to_mask(image).any()
    return MaskSurvey(len(chosen), num_empty, tuple(sorted(values)))
