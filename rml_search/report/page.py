"""The page itself: what is known of a search, put into the templates beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from rml_search.report import words
from rml_search.report.pictures import Gallery
from rml_search.report.plot import COLOURS, Plot, Plots
from rml_search.report.summary import Cost, Dimension, State, StudySummary, TrialSummary, Value, cost_of
from rml_search.retraining import train_command
from rml_search.run_record import RunRecord
from rmldnn_contract import __version__

#: So many hyperparameters have room on a sheet that stands upright; a reason takes that of two.
_UPRIGHT_COLUMNS = 6


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        importances: hyperparameter -> share; empty where unknown.
        plotly_script: the source of plotly.js.
        test_accuracy: of the model that inference uses, on the search's test images; None where it is not known.
    """

    study: StudySummary
    importances: Mapping[str, float]
    plots: Plots
    gallery: Gallery
    plotly_script: str
    test_accuracy: float | None = None


@dataclass(frozen=True)
class Influence:
    """A row of the table of what mattered."""

    name: str
    share: str
    best: str
    effect: str


@dataclass(frozen=True)
class Cell:
    """A cell of the table of trials: what it shows, what it is sorted by, and how it is laid out."""

    text: str
    sort: str | float
    kind: Literal["", "number", "reason"] = ""


@dataclass(frozen=True)
class Repetition:
    """What a person needs to repeat the search.

    Attributes:
        runs: how it was begun, and went on; empty where that was not recorded.
        settings, digests: (name, value); digests are SHA-256 of files.
        train_best: the command that trains the best trial alone; None without one.
    """

    runs: tuple[RunRecord, ...]
    settings: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]
    train_best: str | None
    seed: str | None


def render_page(page: Page) -> str:
    """The page as HTML, whole: it refers to nothing outside itself."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rml_search.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(seconds=words.show_seconds, value=words.show_value)
    study, cost = page.study, cost_of(page.study)
    return environment.get_template("report.html.j2").render(
        study=study,
        best=study.best,
        cost=cost,
        page=page,
        version=__version__,
        words=words,
        tiles=_tiles(study, cost),
        influences=_influences(page),
        columns=[dimension.name for dimension in study.dimensions],
        rows=[(trial, _cells(trial, study)) for trial in study.trials],
        has_reasons=_has_reasons(study),
        is_wide=_is_wide(study),
        num_running=len(study.of_state(State.RUNNING)),
        repeat=_repeat(study),
        figures={plot.key: plot.figure for plot in _all_plots(page.plots) if plot.figure is not None},
        dark_colours={colour.light: colour.dark for colour in COLOURS},
        State=State,
    )


def _all_plots(plots: Plots) -> list[Plot]:
    return [plots.importances, plots.history, plots.curves, *plots.slices, plots.parallel, plots.seconds]


def _tiles(study: StudySummary, cost: Cost) -> list[tuple[str, str]]:
    """(what, how much), the figures that people ask for first."""
    best = study.best
    return [
        ("Best accuracy (Dice)", "none" if best is None else f"{best.accuracy:.3f}"),
        ("Finished trials", str(cost.num_finished)),
        ("Total trial time", words.show_seconds(cost.seconds)),
        ("Epochs trained", str(cost.num_epochs)),
        ("Epochs saved by pruning", str(cost.saved_epochs)),
    ]


def _influences(page: Page) -> list[Influence]:
    study, best = page.study, page.study.best
    if best is None:
        return []
    shares = page.importances
    return [
        Influence(
            name=dimension.name,
            share=words.percent(shares[dimension.name]) if dimension.name in shares else "unknown",
            best=_value_of(best, dimension),
            effect=words.describe_effect(study, dimension),
        )
        for dimension in sorted(study.dimensions, key=lambda dimension: -shares.get(dimension.name, 0.0))
    ]


def _value_of(trial: TrialSummary, dimension: Dimension) -> str:
    if dimension.name not in trial.hyperparameters:
        return "none"
    return words.show_value(trial.hyperparameters[dimension.name])


def _cells(trial: TrialSummary, study: StudySummary) -> list[Cell]:
    """One row of the table: the columns that the template heads, hyperparameters in the middle."""
    hyperparameters = [_value_cell(trial, dimension) for dimension in study.dimensions]
    return [
        Cell(str(trial.number), trial.number, kind="number"),
        Cell(trial.state.value, trial.state.value),
        _number_cell(trial.accuracy, "{:.3f}"),
        _number_cell(trial.best_epoch, "{}"),
        *hyperparameters,
        Cell(str(trial.num_epochs), trial.num_epochs, kind="number"),
        Cell(words.show_seconds(trial.seconds), trial.seconds, kind="number"),
        *([Cell(_reason(trial), _reason(trial), kind="reason")] if _has_reasons(study) else []),
    ]


def _has_reasons(study: StudySummary) -> bool:
    return any(_reason(trial) for trial in study.trials)


def _is_wide(study: StudySummary) -> bool:
    """Whether the table of trials needs a sheet of paper on its side."""
    return len(study.dimensions) + 2 * _has_reasons(study) > _UPRIGHT_COLUMNS


def _number_cell(value: float | None, form: str) -> Cell:
    """What is not there is sorted below everything."""
    return Cell("", "", kind="number") if value is None else Cell(form.format(value), value, kind="number")


def _value_cell(trial: TrialSummary, dimension: Dimension) -> Cell:
    if dimension.name not in trial.hyperparameters:
        return Cell("", "")
    value: Value = trial.hyperparameters[dimension.name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = words.show_value(value)
    return Cell(
        words.shorten(text), value if is_number and value is not None else text, kind="number" if is_number else ""
    )


def _reason(trial: TrialSummary) -> str:
    parts = [trial.reason or "", "its hyperparameters get another trial" if trial.state is State.INTERRUPTED else ""]
    return "; ".join(part for part in parts if part)


def _repeat(study: StudySummary) -> Repetition:
    settings = study.settings
    last = study.runs[-1] if study.runs else None
    return Repetition(
        runs=study.runs,
        settings=last.settings if last is not None and last.settings else tuple(settings.items()),
        digests=tuple((name, value) for name, value in settings.items() if _is_digest(value)),
        train_best=None
        if study.best is None
        else train_command(Path("trials", f"{study.best.number:04}", "config.json"), settings.get("--seed")),
        seed=settings.get("--seed"),
    )


def _is_digest(value: str) -> bool:
    return len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
