"""Images, masks and predictions put together, with the scores of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from rml_search.dataset import list_images, list_pairs, name_some
from rml_search.errors import DataSetError
from rml_search.image_scores import ImageScores, find_classes
from rml_search.images import Mask, Pixels, read_image, to_display, to_mask
from rml_search.predictions import Scores, lesion_probability, read_predictions
from rml_search.segmentation_scores import dice_coefficient, hausdorff_distance, measure_overlap
from rmldnn_contract.config import Configuration

THRESHOLD = 0.5  #: of the probability, above which a pixel counts as lesion

_SHORTER_SIDE = 256  #: pixels of a picture, at the least where its file has them
_LONGEST = 4  #: times as long as wide may a picture be

_TRANSFORMS_IN_PLACE = frozenset({"resize", "normalize", "convert_color"})  #: that move no pixel


@dataclass(frozen=True)
class GalleryRow:
    """One image and what the network made of it.

    ``source`` is the image, or its file, which is read where it is drawn; ``prediction`` (h,w) the probability of the
    lesion, ``target`` (h,w) its true mask, or None where it is not known.
    """

    name: str
    source: Pixels | Path
    prediction: Scores
    target: Mask | None = None

    @cached_property
    def image(self) -> Pixels:
        """(H,W) or (H,W,3) of uint8, in the proportions to draw it in. Raises DataSetError where it is unreadable."""
        if not isinstance(self.source, Path):
            return self.source
        return _for_display(to_display(read_image(self.source, str(self.source))), min(self.prediction.shape))

    @cached_property
    def dice(self) -> float | None:
        """The Dice coefficient at a threshold of 0.5, 1 if neither has a lesion; None without a target."""
        return None if self.target is None else dice_coefficient(self.prediction > THRESHOLD, self.target)

    @cached_property
    def hd95(self) -> float | None:
        """The 95 % Hausdorff distance in pixels of the prediction; None without target, or if a mask is empty."""
        return None if self.target is None else hausdorff_distance(self.prediction > THRESHOLD, self.target)


def check_images_in_place(configuration: Configuration) -> Path:
    """The folder of the test images, if predictions lie over them.

    Raises:
        DataSetError: there are no test images, or their transforms move pixels.
    """
    data = configuration.neural_network.data
    if data.test_input_path is None:
        raise DataSetError("the configuration names no test images (data.test_input_path): there is nothing to draw")
    transforms = [*(data.transforms or ()), *(data.input_transforms or ())]
    moving = {key for transform in transforms for key in type(transform).model_fields} - _TRANSFORMS_IN_PLACE
    if moving:
        raise DataSetError(f"cannot draw a gallery: {', '.join(sorted(moving))} moves the pixels of test images")
    return Path(data.test_input_path)


def load_rows(
    inputs: Path, targets: Path | None, predictions: Path | Sequence[Path], image_size: tuple[int, int] | None = None
) -> list[GalleryRow]:
    """Puts together images, masks and predictions, sorted by name.

    Args:
        inputs, targets: the folders that were predicted; without targets there is no Dice.
        predictions: the HDF5 file of the inference, or the folder with those of all processes.
        image_size: (width, height) to compare at; masks are resized to it by nearest neighbours, as the engine
            does, and predictions of another size linearly. None: the size of each prediction.

    Raises:
        DataSetError: something is missing or unreadable, or images and predictions are not of the same run.
    """
    if targets is None:
        pairs: list[tuple[Path, Path | None]] = [(path, None) for path in list_images(inputs)]
    else:
        pairs = [*list_pairs(inputs, targets)]
    names = [path.relative_to(inputs) for path, _ in pairs]
    return [
        _load_row(str(name.with_suffix("")), image, mask, scores, image_size)
        for name, (image, mask), scores in zip(names, pairs, predictions_of(names, predictions), strict=True)
    ]


def predictions_of(names: Sequence[Path], predictions: Path | Sequence[Path]) -> list[Scores]:
    """The prediction (C,H,W) of each image, in the order of their names, which are relative to their folder.

    Raises:
        DataSetError: one is missing, or the predictions cannot be read.
    """
    found = dict(read_predictions(predictions))
    # rmldnn does not say whether its names keep the suffix
    keys = [next((str(key) for key in (name, name.with_suffix("")) if str(key) in found), None) for name in names]
    if absent := [str(name) for name, key in zip(names, keys, strict=True) if key is None]:
        raise DataSetError(f"{predictions} has no prediction of {name_some(absent)}: run the inference again")
    return [found[key] for key in keys if key is not None]


def _load_row(
    name: str, image_path: Path, mask_path: Path | None, scores: Scores, image_size: tuple[int, int] | None
) -> GalleryRow:
    probability = lesion_probability(scores, name)
    size = image_size or probability.shape[::-1]
    if probability.shape[::-1] != size:
        probability = np.asarray(cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR), np.float32)
    if mask_path is None:
        return GalleryRow(name, image_path, probability)
    mask = to_mask(read_image(mask_path, str(mask_path))).astype(np.uint8)
    return GalleryRow(name, image_path, probability, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0)


def _for_display(image: Pixels, side: int) -> Pixels:
    """The image in its own proportions, not larger than it is drawn; a strip is drawn less long than it is."""
    height, width = image.shape[:2]
    shorter = min(height, width, max(side, _SHORTER_SIDE))
    longer = min(round(shorter * max(height, width) / min(height, width)), _LONGEST * shorter)
    size = (longer, shorter) if width > height else (shorter, longer)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def score_rows(rows: Sequence[GalleryRow]) -> list[ImageScores]:
    """The scores of the images that have a target, in their order; classes are told from the names of all rows."""
    classes = find_classes([row.name for row in rows])
    return [
        ImageScores(row.name, classes[row.name], measure_overlap(row.prediction > THRESHOLD, row.target), row.hd95)
        for row in rows
        if row.target is not None
    ]
