"""A picture of predictions beside the truth: rows of input, prediction and ground truth with their Dice.

Everything is drawn through Matplotlib's objects, without pyplot and its global state.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rml_search.errors import DataSetError, WriteError
from rml_search.gallery_rows import THRESHOLD, GalleryRow, load_rows, mean_dice
from rml_search.inference import InferenceResult
from rml_search.paths import Workspace
from rml_search.predictions import Scores, read_predictions
from rmldnn_contract.config import Configuration

__all__ = [
    "GalleryRow",
    "check_gallery",
    "draw_gallery",
    "draw_gallery_of_inference",
    "load_rows",
    "mean_dice",
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
_TINT = 0.25  #: opacity of a region inside its contour
_TRANSFORMS_IN_PLACE = frozenset({"resize", "normalize", "convert_color"})  #: that move no pixel


def check_gallery(configuration: Configuration, out: Path) -> Path:
    """Says before an inference whether a gallery can be drawn of it; gives the folder of its images.

    Raises:
        DataSetError: there are no test images, or their transforms move pixels, so that predictions do not lie
            over the images.
        WriteError: ``out`` does not end in .png, .pdf or .svg.
    """
    _check_format(out)
    return check_images_in_place(configuration)


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
        raise DataSetError(f"no gallery is drawn where {', '.join(sorted(moving))} moves the pixels of test images")
    return Path(data.test_input_path)


def draw_gallery_of_inference(result: InferenceResult, workspace: Workspace, out: Path) -> None:
    """Draws the gallery of the images that an inference has predicted.

    Raises:
        DataSetError: a file is missing or unreadable, or as :func:`check_gallery` has it.
        WriteError: ``out`` cannot be written.
    """
    inputs = workspace.absolute(check_gallery(result.configuration, out))
    named = result.configuration.neural_network.data.test_target_path
    targets = None if named is None else workspace.absolute(Path(named))
    draw_gallery(load_rows(inputs, targets, result.predictions), out)


def draw_gallery(rows: Sequence[GalleryRow], out: Path, *, max_rows: int = 5) -> None:
    """Draws rows of input, prediction and ground truth into a file, atomically.

    Rows are sorted from the worst Dice to the best; where there are more than ``max_rows`` (at least 2), as
    many are drawn at even ranks, the worst and the best among them, so that the picture does not flatter.
    Without targets the first ``max_rows`` are drawn, in the order given. The title has the mean over all
    rows, not only over those drawn.

    Raises:
        WriteError: ``out`` does not end in .png, .pdf or .svg, or cannot be written.
        DataSetError: there are no rows.
    """
    _check_format(out)
    if not rows:
        raise DataSetError("there are no predictions to draw")
    shown = _choose(rows, max_rows)
    figure = _draw(shown, _title(rows, len(shown)))
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower(), dpi=_DOTS_PER_INCH)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(out, picture.getvalue())
    except OSError as error:
        raise WriteError(f"{out} cannot be written: {error.strerror or error}") from error


def _check_format(out: Path) -> None:
    if out.suffix.lower() not in _FORMATS:
        raise WriteError(f"{out} must end in one of {', '.join(sorted(_FORMATS))}")


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _choose(rows: Sequence[GalleryRow], max_rows: int) -> list[GalleryRow]:
    scored = sorted((row.dice, row.name, number) for number, row in enumerate(rows) if row.dice is not None)
    if not scored:
        return list(rows[:max_rows])
    ranks = np.linspace(0, len(scored) - 1, min(max_rows, len(scored))).round().astype(int)
    return [rows[scored[rank][2]] for rank in ranks]


def _title(rows: Sequence[GalleryRow], num_shown: int) -> str:
    count = f"{len(rows)} image{'s' if len(rows) > 1 else ''}"
    mean = mean_dice(rows)
    if mean is None:
        return count if num_shown == len(rows) else f"The first {num_shown} of {count}"
    shown = "" if num_shown == 1 else f"; {num_shown} of them from the worst to the best"
    return f"Mean Dice of the lesion {mean:.3f} over {count}{shown}"


def _draw(rows: Sequence[GalleryRow], title: str) -> Figure:
    """Lays panels out by hand, in inches: a layout engine would leave uneven gaps between images."""
    draw_panels = [_draw_input, _draw_prediction] + [_draw_truth] * any(row.target is not None for row in rows)
    panel_width = (_PAGE_WIDTH - _GAP * (len(draw_panels) + 1)) / len(draw_panels)
    lefts = [_GAP + column * (panel_width + _GAP) for column in range(len(draw_panels))]
    panel_heights = [panel_width * row.prediction.shape[0] / row.prediction.shape[1] for row in rows]
    height = _HEADER_HEIGHT + _FOOTER_HEIGHT + sum(panel_heights) + len(rows) * (_LABEL_HEIGHT + _GAP)
    figure = Figure(figsize=(_PAGE_WIDTH, height))
    FigureCanvasAgg(figure)
    top = height - _HEADER_HEIGHT
    _write(figure, title, (_PAGE_WIDTH / 2, height - 0.28), size=11, align="center")
    for left, heading in zip(lefts, ("Input", "Prediction", "Ground truth"), strict=False):
        _write(figure, heading, (left + panel_width / 2, top), size=10, align="center")
    for row, panel_height in zip(rows, panel_heights, strict=True):
        top -= _LABEL_HEIGHT
        _write(figure, _shorten(row.name), (lefts[0], top + 0.05), size=8)
        _write(figure, _dice_label(row), (lefts[1], top + 0.05), size=8)
        top -= panel_height
        for left, draw_panel in zip(lefts, draw_panels, strict=True):
            draw_panel(_add_panel(figure, (left, top, panel_width, panel_height), row), row)
        top -= _GAP
    _add_legend(figure, with_truth=len(draw_panels) == 3)
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
    _outline(axes, row.prediction, _PREDICTION_COLOUR, filled=True)
    if row.target is not None:
        _outline(axes, row.target.astype(np.float32), _TRUTH_COLOUR, style="dashed")


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
    axes.contour(columns, rows, framed, levels=[THRESHOLD], colors=[colour], linewidths=1.3, linestyles=style)
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)


def _add_legend(figure: Figure, *, with_truth: bool) -> None:
    lines = [Line2D([], [], color=_PREDICTION_COLOUR, label=f"prediction (probability above {THRESHOLD})")]
    if with_truth:
        lines.append(Line2D([], [], color=_TRUTH_COLOUR, linestyle="dashed", label="ground truth"))
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=8, frameon=False, borderaxespad=0.4)


def _write(figure: Figure, text: str, at: tuple[float, float], *, size: int, align: str = "left") -> None:
    """Writes at (left, bottom) inches; a ``$`` in a file's name starts no formula."""
    width, height = figure.get_size_inches()
    figure.text(at[0] / width, at[1] / height, text, fontsize=size, ha=align, va="bottom", parse_math=False)


def _dice_label(row: GalleryRow) -> str:
    if row.dice is None or row.target is None:
        return ""
    without_lesion = f" (no lesion, {'none' if row.dice == 1 else 'one'} found)"
    return f"Dice {row.dice:.3f}" + ("" if row.target.any() else without_lesion)


def _shorten(name: str) -> str:
    """Cuts the middle out of a long name: its beginning and its number tell images apart."""
    half = (_MAX_NAME - 1) // 2
    return name if len(name) <= _MAX_NAME else f"{name[:half]}…{name[-half:]}"
