"""How well an inference has found the lesion of each image, where that can be said."""

from __future__ import annotations

from pathlib import Path

from rml_search.errors import DataSetError
from rml_search.gallery_rows import check_images_in_place, load_rows, score_rows
from rml_search.image_scores import ImageScores, write_scores
from rml_search.inference import InferenceResult
from rml_search.paths import Workspace


def score_inference(result: InferenceResult, workspace: Workspace) -> list[ImageScores]:
    """The scores of each image, at the size that was predicted; they are also written beside the predictions.

    Empty where there are no masks of one class to compare with: no targets, labels or arrays in their place, or
    transforms that move pixels.

    Raises:
        WriteError: the file cannot be written.
    """
    data = result.configuration.neural_network.data
    if data.test_target_path is None or not result.predictions:
        return []
    if data.inputs_are != "images" or data.targets_are != "images" or not data.target_is_mask:
        return []
    try:
        inputs = workspace.absolute(check_images_in_place(result.configuration))
        rows = load_rows(inputs, workspace.absolute(Path(data.test_target_path)), result.predictions)
    except DataSetError:
        return []
    scores = score_rows(rows)
    write_scores(scores, workspace.scores(result.predictions[0].parent))
    return scores
