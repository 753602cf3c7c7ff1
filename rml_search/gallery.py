"""A picture of predictions beside the truth: rows of input, ground truth and prediction with their scores.

Everything is drawn through Matplotlib's objects, without pyplot and its global state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rml_search.errors import DataSetError, WriteError
from rml_search.gallery_rows import THRESHOLD, GalleryRow, check_images_in_place, load_rows, score_rows
from rml_search.image_scores import mean_scores, worst_first
from rml_search.inference import InferenceResult
from rml_search.paths import Workspace
from rml_search.predictions import Scores, read_predictions
from rml_search.whole_files import replacing
from rmldnn_contract.config import Configuration

__all__ = [
    "GalleryRow",
    "check_gallery",
    "draw_gallery",
    "draw_gallery_of_inference",
    "load_rows",
    "read_predictions",
]

# Okabe and Ito's palette: told apart with any kind of colour vision, and by their lightness in print.
_PREDICTION_COLOUR = "#E69F00"
_TRUTH_COLOUR = "#56B4E9"
_PAGE_WIDTH = 7.0  #: inches, as the lengths below
_HEADER_HEIGHT, _FOOTER_HEIGHT, _LABEL_HEIGHT = 0.62, 0.34, 0.24
_GAP = 0.07
_DOTS_PER_INCH = 200
_FORMATS = frozenset({".pdf", ".png", ".svg"})
_MAX_NAME = 34  #: characters
_LINE_WIDTH = 1.8  #: points
_TINT = 0.2  #: opacity of a region inside its contour


class Order(Enum):
    """Which rows a gallery shows where it cannot show all; either way the worst comes first."""

    SPREAD = "spread"  #: at even ranks, the worst and the best among them, so that the picture does not flatter
    WORST = "worst"


def check_gallery(configuration: Configuration, out: Path) -> Path:
    """Says before an inference whether a gallery can be drawn of it; gives the folder of its images.

    Raises:
        DataSetError: there are no test images, or their transforms move pixels, so that predictions do not lie
            over the images.
        WriteError: ``out`` does not end in .png, .pdf or .svg.
    """
    _check_format(out)
    return check_images_in_place(configuration)


def draw_gallery_of_inference(
    result: InferenceResult, workspace: Workspace, out: Path, order: Order = Order.SPREAD
) -> None:
    """Draws the gallery of the images that an inference has predicted.

    Raises:
        DataSetError: a file is missing or unreadable, or as :func:`check_gallery` has it.
        WriteError: ``out`` cannot be written.
    """
    inputs = workspace.absolute(check_gallery(result.configuration, out))
    named = result.configuration.neural_network.data.test_target_path
    targets = None if named is None else workspace.absolute(Path(named))
    draw_gallery(load_rows(inputs, targets, result.predictions), out, order=order)


def draw_gallery(rows: Sequence[GalleryRow], out: Path, *, max_rows: int = 5, order: Order = Order.SPREAD) -> None:
    """Draws rows of input, ground truth and prediction into a file, atomically.

    Rows are sorted from the worst Dice to the best. Where there are more than ``max_rows`` (at least 2), ``order``
    says which are drawn. Without targets the first ``max_rows`` are drawn, in the order given. The title has the
    means over all rows, not only over those drawn.

    Raises:
        WriteError: ``out`` does not end in .png, .pdf or .svg, or cannot be written.
        DataSetError: there are no rows.
    """
    _check_format(out)
    if not rows:
        raise DataSetError("there are no predictions to draw")
    shown = _choose(rows, max_rows, order)
    figure = _draw(shown, _title(rows, len(shown), order))
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower(), dpi=_DOTS_PER_INCH)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            temporary.write_bytes(picture.getvalue())
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}") from error


def _check_format(out: Path) -> None:
    if out.suffix.lower() not in _FORMATS:
        raise WriteError(f"{out} must end in one of {', '.join(sorted(_FORMATS))}")


def _choose(rows: Sequence[GalleryRow], max_rows: int, order: Order) -> list[GalleryRow]:
    by_name = {row.name: row for row in rows}
    scored = worst_first(score_rows(rows))
    if not scored:
        return list(rows[:max_rows])
    num_shown = min(max_rows, len(scored))
    last = len(scored) - 1 if order is Order.SPREAD else num_shown - 1
    return [by_name[scored[rank].name] for rank in np.linspace(0, last, num_shown).round().astype(int)]


def _title(rows: Sequence[GalleryRow], num_shown: int, order: Order) -> str:
    count = f"{len(rows)} image{'s' if len(rows) > 1 else ''}"
    scores = score_rows(rows)
    if not scores:
        return count if num_shown == len(rows) else f"The first {num_shown} of {count}"
    means = mean_scores(scores)
    is_cut = order is Order.WORST and num_shown < len(rows)
    which = f"the {num_shown} worst" if is_cut else f"{num_shown}, from worst to best"
    shown = "" if num_shown == 1 else f"; here {which}"
    return f"Lesion in {count}: mean Dice {means.dice:.3f}, IoU {means.iou:.3f}{shown}"


def _draw(rows: Sequence[GalleryRow], title: str) -> Figure:
    """Lays panels out by hand, in inches: a layout engine would leave uneven gaps between images."""
    with_truth = any(row.target is not None for row in rows)
    panels = [("Input", _draw_input), *[("Ground truth", _draw_truth)] * with_truth, ("Prediction", _draw_prediction)]
    draw_panels = [draw_panel for _, draw_panel in panels]
    panel_width = (_PAGE_WIDTH - _GAP * (len(draw_panels) + 1)) / len(draw_panels)
    lefts = [_GAP + column * (panel_width + _GAP) for column in range(len(draw_panels))]
    panel_heights = [panel_width * row.image.shape[0] / row.image.shape[1] for row in rows]
    height = _HEADER_HEIGHT + _FOOTER_HEIGHT + sum(panel_heights) + len(rows) * (_LABEL_HEIGHT + _GAP)
    figure = Figure(figsize=(_PAGE_WIDTH, height))
    FigureCanvasAgg(figure)
    top = height - _HEADER_HEIGHT
    _write(figure, title, (_PAGE_WIDTH / 2, height - 0.28), size=11, align="center")
    for left, (heading, _) in zip(lefts, panels, strict=True):
        _write(figure, heading, (left + panel_width / 2, top), size=10, align="center")
    for row, panel_height in zip(rows, panel_heights, strict=True):
        top -= _LABEL_HEIGHT
        _write(figure, _shorten(row.name), (lefts[0], top + 0.05), size=9)
        _write(figure, _label(row), (_PAGE_WIDTH - _GAP, top + 0.05), size=9, align="right")
        top -= panel_height
        for left, draw_panel in zip(lefts, draw_panels, strict=True):
            draw_panel(_add_panel(figure, (left, top, panel_width, panel_height), row), row)
        top -= _GAP
    _add_legend(figure, with_truth=with_truth)
    return figure


def _add_panel(figure: Figure, box: tuple[float, float, float, float], row: GalleryRow) -> Axes:
    """Adds axes at (left, bottom, width, height) inches that show the image."""
    width, height = figure.get_size_inches()
    left, bottom, panel_width, panel_height = box
    axes = figure.add_axes((left / width, bottom / height, panel_width / width, panel_height / height))
    axes.set_axis_off()
    rows, columns = row.prediction.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(row.image, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation="bilinear")
    return axes


def _draw_input(axes: Axes, row: GalleryRow) -> None:
    """Leaves the image as it is."""


def _draw_prediction(axes: Axes, row: GalleryRow) -> None:
    if row.target is not None:
        _outline(axes, row.target.astype(np.float32), _TRUTH_COLOUR)
    _outline(axes, row.prediction, _PREDICTION_COLOUR, style="dashed", filled=True)


def _draw_truth(axes: Axes, row: GalleryRow) -> None:
    if row.target is not None:
        _outline(axes, row.target.astype(np.float32), _TRUTH_COLOUR, filled=True)


def _outline(axes: Axes, probability: Scores, colour: str, *, style: str = "solid", filled: bool = False) -> None:
    """Draws the border of a region (h,w), also where it meets that of the image, and tints its inside."""
    inside = probability > THRESHOLD
    if not inside.any():
        return
    if filled:
        tint = np.zeros((*inside.shape, 4))
        tint[inside] = (*to_rgb(colour), _TINT)
        axes.imshow(tint, aspect="auto", interpolation="nearest")
    framed = np.pad(probability, 1)
    rows, columns = (np.arange(-1, length + 1) for length in inside.shape)
    axes.contour(columns, rows, framed, levels=[THRESHOLD], colors=[colour], linewidths=_LINE_WIDTH, linestyles=style)
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)


def _add_legend(figure: Figure, *, with_truth: bool) -> None:
    label = f"prediction (probability above {THRESHOLD})"
    lines = [Line2D([], [], color=_TRUTH_COLOUR, linewidth=_LINE_WIDTH, label="ground truth")] * with_truth
    lines.append(Line2D([], [], color=_PREDICTION_COLOUR, linewidth=_LINE_WIDTH, linestyle="dashed", label=label))
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=9, frameon=False, borderaxespad=0.4)


def _write(figure: Figure, text: str, at: tuple[float, float], *, size: int, align: str = "left") -> None:
    """Writes at (left, bottom) inches; a ``$`` in a file's name starts no formula."""
    width, height = figure.get_size_inches()
    figure.text(at[0] / width, at[1] / height, text, fontsize=size, ha=align, va="bottom", parse_math=False)


def _label(row: GalleryRow) -> str:
    if row.target is None:
        return ""
    (scores,) = score_rows([row])
    if row.target.any():
        distance = "nothing found" if scores.hd95 is None else f"HD95 {scores.hd95:.1f} px"
    else:
        distance = f"no lesion, {'none' if scores.dice == 1 else 'one'} found"
    return f"Dice {scores.dice:.3f}, IoU {scores.iou:.3f}, {distance}"


def _shorten(name: str) -> str:
    """Cuts the middle out of a long name: its beginning and its number tell images apart."""
    half = (_MAX_NAME - 1) // 2
    return name if len(name) <= _MAX_NAME else f"{name[:half]}…{name[-half:]}"
