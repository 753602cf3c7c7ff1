"""How well a predicted mask covers the true one."""

from __future__ import annotations

from rml_search.images import Mask


def dice_coefficient(prediction: Mask, truth: Mask) -> float:
    """Returns 2 |A and B| / (|A| + |B|) of two masks (H,W), in [0, 1].

    If both are empty, nothing is there and nothing was found: that is 1 (Maier-Hein et al., "Metrics reloaded",
    Nature Methods 2024, discuss the choice). Raises ValueError for masks of different shapes.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of shapes {prediction.shape} and {truth.shape} cannot be compared")
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else 1.0
