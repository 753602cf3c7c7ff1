"""The scores of each predicted image, and their means: of all images, and of each class."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rml_search.errors import WriteError
from rml_search.segmentation_scores import Overlap
from rml_search.whole_files import write_atomically

#: A name that ends in a number: ``benign (1)``, ``benign_12``, ``scan-007``.
_NUMBERED = re.compile(r"(?P<stem>.*[^\W\d_])[\W_]*\d+\)?")
_COLUMNS = ("name", "class", "dice", "iou", "hd95_pixels", "common_pixels", "predicted_pixels", "true_pixels")


@dataclass(frozen=True)
class ImageScores:
    """How well one image was predicted.

    Attributes:
        name: with its subfolder, without its suffix.
        class_name: what its folder or name tells (``benign``); None where they tell images apart and no classes.
        overlap: pixels at the size that was predicted.
        hd95: the 95 % Hausdorff distance in pixels at that size; None if the prediction or the truth is empty.
    """

    name: str
    class_name: str | None
    overlap: Overlap
    hd95: float | None

    @property
    def dice(self) -> float:
        """The Dice coefficient of the lesion, in [0, 1]; 1 if nothing is there and nothing was found."""
        return self.overlap.dice

    @property
    def iou(self) -> float:
        """Intersection over union of the lesion, in [0, 1]; 1 as for Dice."""
        return self.overlap.iou


@dataclass(frozen=True)
class MeanScores:
    """The means over images: each image counts the same; pooled, each pixel does.

    ``hd95`` is the mean over the ``num_with_distance`` images where both masks have a lesion; None if there are none.
    The pooled scores are None where no image has a lesion: a single false pixel would make them 0.
    """

    name: str
    num_images: int
    dice: float
    iou: float
    hd95: float | None
    num_with_distance: int
    pooled_dice: float | None
    pooled_iou: float | None


def mean_scores(scores: Sequence[ImageScores], name: str = "all") -> MeanScores:
    """The means of at least one image. Raises ValueError for none."""
    if not scores:
        raise ValueError("there are no scores to average")
    distances = [one.hd95 for one in scores if one.hd95 is not None]
    pooled = sum((one.overlap for one in scores), Overlap(0, 0, 0))
    return MeanScores(
        name,
        len(scores),
        statistics.fmean(one.dice for one in scores),
        statistics.fmean(one.iou for one in scores),
        statistics.fmean(distances) if distances else None,
        len(distances),
        pooled.dice if pooled.num_true else None,
        pooled.iou if pooled.num_true else None,
    )


def means_by_class(scores: Sequence[ImageScores]) -> list[MeanScores]:
    """The means of each class by name, those of images without one (``other``), and last those of all images.

    Raises ValueError for no scores.
    """
    classes = sorted({one.class_name for one in scores if one.class_name is not None})
    groups = [(name, [one for one in scores if one.class_name == name]) for name in classes]
    without = [one for one in scores if one.class_name is None]
    groups += [("other", without)] if classes and without else []
    return [*(mean_scores(group, name) for name, group in groups), mean_scores(scores)]


def worst_first(scores: Sequence[ImageScores]) -> list[ImageScores]:
    """Sorted by Dice, then by the distance (none first: nothing was found at all), then by name."""
    return sorted(scores, key=lambda one: (one.dice, -(float("inf") if one.hd95 is None else one.hd95), one.name))


def find_classes(names: Sequence[str]) -> dict[str, str | None]:
    """The class of each name: its subfolder, else what stands before its number.

    A word that all names share tells no classes, and neither do words of which most belong to one image: then all
    are None.
    """
    found = {name: _class_of(PurePosixPath(name)) for name in names}
    counts = Counter(class_name for class_name in found.values() if class_name is not None)
    if len(counts) < 2 or 2 * len(counts) > len(found):
        return dict.fromkeys(names)
    return found


def _class_of(name: PurePosixPath) -> str | None:
    if name.parent.name:
        return name.parent.as_posix()
    match = _NUMBERED.fullmatch(name.name)
    return match["stem"] if match else None


def write_scores(scores: Sequence[ImageScores], path: Path) -> None:
    """Writes one line for each image as CSV, atomically; a distance that does not exist is left empty.

    Raises:
        WriteError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for one in scores:
        distance = "" if one.hd95 is None else f"{one.hd95:.4f}"
        pixels = one.overlap
        counts = (pixels.num_common, pixels.num_predicted, pixels.num_true)
        table.writerow([one.name, one.class_name or "", f"{one.dice:.6f}", f"{one.iou:.6f}", distance, *counts])
    try:
        write_atomically(path, text.getvalue(), durably=False)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
