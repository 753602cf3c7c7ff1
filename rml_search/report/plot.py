"""A plot as the page takes it, and the colours that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plot:
    """A figure for plotly.js, or why there is none.

    Attributes:
        key: names the plot within the page.
        figure: ``data`` and ``layout``, as JSON has them; None where there is nothing to draw.
        description: what a person would see in it, or why there is nothing, in words.
        title: what tells it from others of its kind.
        min_width: in pixels; a narrower window scrolls it.
    """

    key: str
    figure: Mapping[str, Any] | None
    description: str
    title: str = ""
    min_width: int = 0


@dataclass(frozen=True)
class Plots:
    """The plots of a report, in the order of the page."""

    importances: Plot
    history: Plot
    curves: Plot
    slices: tuple[Plot, ...]
    parallel: Plot
    seconds: Plot


@dataclass(frozen=True)
class Colour:
    """A colour on a light and on a dark page; figures are drawn in the light one, and the page exchanges them."""

    light: str
    dark: str


# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/): told apart with any kind of colour vision. Of its eight
# colours each takes the one that contrasts by at least 3 to 1 with the page.
COMPLETE = Colour("#0072B2", "#56B4E9")
PRUNED = Colour("#D55E00", "#E69F00")
FAILED = Colour("#6E6E6E", "#B0B0B0")
RUNNING = Colour("#009E73", "#009E73")
BEST = Colour("#000001", "#FFFFFE")  #: black on white, white on black; one off, to be no other's colour
TEXT = Colour("#1C2024", "#E6E8EA")
GRID = Colour("#D9DDE1", "#3A4046")
PAPER = Colour("#FFFFFD", "#14171A")

COLOURS = (COMPLETE, PRUNED, FAILED, RUNNING, BEST, TEXT, GRID, PAPER)
