"""How well a predicted mask covers the true one: Dice, IoU and the Hausdorff distance, as MONAI defines them.

Where MONAI leaves a choice: empty masks count (``ignore_empty=False``), and the distance is the larger one of both
directions (``directed=False``) at the 95th percentile, in pixels of the masks that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rml_search.images import Mask

PERCENTILE = 95  #: of the distances from one border to the other


@dataclass(frozen=True)
class Overlap:
    """Pixels of lesion: those that prediction and truth have in common, and those of each; of one image or of many."""

    num_common: int
    num_predicted: int
    num_true: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.num_common + other.num_common,
            self.num_predicted + other.num_predicted,
            self.num_true + other.num_true,
        )

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|), in [0, 1]; 1 if both are empty.

        Nothing is there and nothing was found (Maier-Hein et al., "Metrics reloaded", Nature Methods 2024, discuss
        the choice).
        """
        total = self.num_predicted + self.num_true
        return 2 * self.num_common / total if total else 1.0

    @property
    def iou(self) -> float:
        """|A and B| / |A or B|, in [0, 1]; 1 if both are empty."""
        union = self.num_predicted + self.num_true - self.num_common
        return self.num_common / union if union else 1.0


def measure_overlap(prediction: Mask, truth: Mask) -> Overlap:
    """Counts the pixels of two masks (H,W). Raises ValueError for masks of different shapes."""
    _check_shapes(prediction, truth)
    return Overlap(int((prediction & truth).sum()), int(prediction.sum()), int(truth.sum()))


def dice_coefficient(prediction: Mask, truth: Mask) -> float:
    """Returns the Dice coefficient of two masks (H,W), as :attr:`Overlap.dice` has it; errors as there."""
    return measure_overlap(prediction, truth).dice


def hausdorff_distance(prediction: Mask, truth: Mask, percentile: float = PERCENTILE) -> float | None:
    """Returns the ``percentile`` of the distances between the borders of two masks (H,W), in pixels.

    A border is what erosion with the four neighbours takes away, so pixels at the image's edge belong to it. For
    each border pixel of one mask the distance to the nearest one of the other is taken, the percentile (with linear
    interpolation) of each direction, and the larger of both.

    None where a mask is empty, as there is no distance to nothing; MONAI 1.6 gives NaN, which its means
    pass over as ours do. Raises ValueError for masks of different shapes.
    """
    _check_shapes(prediction, truth)
    if not (prediction.any() and truth.any()):
        return None
    predicted_border, true_border = _border(prediction), _border(truth)
    return max(
        float(np.percentile(_distances_to(true_border)[predicted_border], percentile)),
        float(np.percentile(_distances_to(predicted_border)[true_border], percentile)),
    )


def _border(mask: Mask) -> Mask:
    from scipy.ndimage import binary_erosion

    return np.asarray(mask & ~binary_erosion(mask), dtype=np.bool_)


def _distances_to(border: Mask) -> npt.NDArray[np.float64]:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~border), dtype=np.float64)


def _check_shapes(prediction: Mask, truth: Mask) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of shapes {prediction.shape} and {truth.shape} cannot be compared")
