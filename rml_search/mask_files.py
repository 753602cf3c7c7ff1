"""Predicted masks as PNG files at the sizes of the images, for other programs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rml_search.dataset import list_images
from rml_search.errors import DataSetError, OptionError
from rml_search.gallery_rows import THRESHOLD, check_images_in_place, predictions_of
from rml_search.images import Mask, read_image
from rml_search.inference import InferenceResult
from rml_search.new_folder import check_free, new_folder
from rml_search.paths import Workspace
from rml_search.predictions import Scores, lesion_probability
from rmldnn_contract.config import Configuration


def check_masks(configuration: Configuration, out: Path) -> None:
    """Says before an inference whether its masks can be written into ``out``, a new or an empty folder.

    Raises:
        DataSetError: there are no test images, or their transforms move pixels.
        OptionError: the data is of another kind.
        WriteError: something is in ``out`` already.
    """
    check_free(out)
    if configuration.neural_network.data.inputs_are != "images":
        raise OptionError("--export writes masks of images, but the test data of this configuration is not images")
    check_images_in_place(configuration)


def write_masks(result: InferenceResult, workspace: Workspace, out: Path) -> int:
    """Writes a mask of each image that an inference has predicted: 255 where the lesion is, else 0.

    The probability is resized to the image's own size, linearly, before it is compared with the threshold. A mask
    has the name of its image, in its subfolder, with the ending ``.png``. The folder appears whole or not at all.

    Returns:
        how many those are.

    Raises:
        DataSetError: a prediction is missing or is no probability, or two images differ in their ending alone.
        WriteError: ``out`` is in use or cannot be written.
    """
    inputs = workspace.absolute(check_images_in_place(result.configuration))
    names = [path.relative_to(inputs) for path in list_images(inputs)]
    masks = [name.with_suffix(".png") for name in names]
    if twice := next((name for name in masks if masks.count(name) > 1), None):
        raise DataSetError(f"two images in {inputs} would get the mask {twice}: rename one of them")
    with new_folder(out) as folder:
        for name, mask, scores in zip(names, masks, predictions_of(names, result.predictions), strict=True):
            size = read_image(inputs / name, str(inputs / name)).size
            (folder / mask).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_lesion(scores, str(name), size)).convert("L").save(folder / mask)
    return len(masks)


def _lesion(scores: Scores, name: str, size: tuple[int, int]) -> Mask:
    """Where (H,W) the lesion is in an image of ``size`` (width, height)."""
    probability = cv2.resize(lesion_probability(scores, name), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(probability > THRESHOLD, dtype=np.bool_)
