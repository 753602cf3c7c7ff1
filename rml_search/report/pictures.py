"""The pictures of the report: what the best model makes of the test images, worst first."""

from __future__ import annotations

import base64
import statistics
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rml_search.errors import SearchError
from rml_search.gallery_rows import GalleryRow, check_images_in_place, load_rows, score_rows
from rml_search.image_scores import ImageScores, MeanScores, means_by_class, worst_first
from rml_search.images import Pixels
from rml_search.inference import choose_inference_config, has_run, read_inference_configuration
from rml_search.overlays import draw_overlay, draw_plain
from rml_search.paths import Workspace
from rmldnn_contract.exit_status import EngineError

MAX_PICTURES = 24

_GAP = 6  #: pixels between the image and the same with contours
_QUALITY = 88  #: of WebP, of 100


@dataclass(frozen=True)
class Picture:
    """One test image: beside it the same with the contours of the prediction and of the truth.

    ``source`` is the picture itself, as an address.
    """

    scores: ImageScores
    source: str
    alternative: str


@dataclass(frozen=True)
class Gallery:
    """The predictions of the best model.

    Attributes:
        scores: of all images, worst first.
        pictures: of the worst of them.
        reason: why there are none, and what to do about it; None where there are some.
    """

    scores: tuple[ImageScores, ...] = ()
    pictures: tuple[Picture, ...] = ()
    reason: str | None = None

    @property
    def means(self) -> list[MeanScores]:
        """Those of each class, and last those of all images. Raises ValueError where there are none."""
        return means_by_class(self.scores)

    @property
    def median_dice(self) -> float:
        """Half of the images are better. Raises StatisticsError where there are none."""
        return statistics.median(one.dice for one in self.scores)

    @property
    def num_poor(self) -> int:
        """The images whose Dice is below one half."""
        return sum(one.dice < 0.5 for one in self.scores)


def load_gallery(workspace: Workspace) -> Gallery:
    """The pictures that can be made of what inference has left; else why there are none."""
    if not any(workspace.predictions.glob("output_*.h5")):
        return Gallery(reason="The best model has not been run on the test images yet.")
    if _are_outdated(workspace):
        return Gallery(reason="The predictions are from an earlier best model.")
    try:
        return _draw(workspace)
    except (SearchError, EngineError) as error:
        return Gallery(reason=f"The predictions cannot be drawn: {error}.")


def _are_outdated(workspace: Workspace) -> bool:
    """Whether the model that inference takes, of the search or of a confirmation, is newer than the predictions."""
    written = min(path.stat().st_mtime for path in workspace.predictions.glob("output_*.h5"))
    digests = (workspace.confirmed_model.digest, workspace.best_digest)
    digest = next((path for path in digests if path.is_file()), None)
    return digest is not None and written < digest.stat().st_mtime


def _draw(workspace: Workspace) -> Gallery:
    configuration = read_inference_configuration(choose_inference_config(workspace, None))
    if not has_run(configuration, workspace, workspace.predictions):
        return Gallery(reason="The predictions are of another model, or of other images than the search's test images.")
    inputs = workspace.absolute(check_images_in_place(configuration))
    targets = configuration.neural_network.data.test_target_path
    if targets is None:
        return Gallery(reason="The test images have no masks to compare with.")
    rows = load_rows(inputs, workspace.absolute(Path(targets)), workspace.predictions)
    by_name = {row.name: row for row in rows}
    scores = worst_first(score_rows(rows))
    pictures = (_picture(by_name[one.name], one) for one in scores[:MAX_PICTURES])
    return Gallery(tuple(scores), tuple(pictures))


def _picture(row: GalleryRow, scores: ImageScores) -> Picture:
    return Picture(scores, _address(_side_by_side(row)), _alternative(row, scores))


def _alternative(row: GalleryRow, scores: ImageScores) -> str:
    num_pixels, overlap = row.prediction.size, scores.overlap
    true, predicted = overlap.num_true / num_pixels, overlap.num_predicted / num_pixels
    return (
        f"{row.name}: the lesion covers {true:.1%} of the image, the prediction {predicted:.1%}, and their Dice is "
        f"{scores.dice:.3f}"
    )


def _side_by_side(row: GalleryRow) -> Pixels:
    """The image, and beside it the image with both contours, (H,W,3) of uint8, red first."""
    marked = draw_overlay(row)
    gap = np.full((len(marked), _GAP, 3), 255, np.uint8)
    return np.concatenate([draw_plain(row), gap, marked], axis=1)


def _address(image: Pixels) -> str:
    """The picture itself as an address, ``data:image/webp;base64,...``."""
    _, encoded = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
