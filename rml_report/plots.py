"""The plots of a report: Optuna's, drawn by plotly, with the pruned trials told apart and colours that anybody sees."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from rml_report.comparison import axis_label, compared_study, importance_evaluator, importance_shares
from rml_search.report import plot as colours
from rml_search.report.plot import Plot, Plots
from rml_search.report.summary import Dimension, State, StudySummary, TrialSummary, Value, accuracy_of
from rml_search.report.words import (
    describe_curves,
    describe_history,
    describe_importances,
    describe_parallel,
    describe_seconds,
    describe_slice,
    percent,
    shorten,
    timed_trials,
    why_no_importances,
)

# Optuna's plots import Matplotlib too, which warns of a home that it cannot write to.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

ACCURACY = "Accuracy (Dice)"

_STYLES = {
    State.COMPLETE: (colours.COMPLETE, "circle", "solid"),
    State.PRUNED: (colours.PRUNED, "x", "dash"),
    State.FAILED: (colours.FAILED, "triangle-down", "dot"),
    State.INTERRUPTED: (colours.FAILED, "square-open", "longdash"),
    State.RUNNING: (colours.RUNNING, "diamond", "dashdot"),
}
_MAX_LABEL = 16  #: characters of a value on an axis
_MAX_NAME = 16  #: of a name on an axis, in one line
_AXIS_WIDTH = 105  #: pixels from one parallel axis to the next


def plotly_script() -> str:
    """The whole of plotly.js, for a page that loads nothing."""
    return str(get_plotlyjs())


def draw_plots(study: StudySummary) -> Plots:
    """All plots of a study; where there is too little to draw, each says so."""
    compared = compared_study(study)
    return Plots(
        importances=_importances_plot(study, compared),
        history=_history_plot(study, compared),
        curves=_curves_plot(study, compared),
        slices=tuple(_slice_plot(study, compared, dimension) for dimension in _drawn_dimensions(study)),
        parallel=_parallel_plot(study, compared),
        seconds=_seconds_plot(study),
    )


def _importances_plot(study: StudySummary, compared: optuna.Study) -> Plot:
    reason = why_no_importances(study)
    if reason is not None:
        return Plot("importances", None, reason)
    figure = optuna.visualization.plot_param_importances(compared, evaluator=importance_evaluator(study))
    figure.update_traces(marker_color=colours.COMPLETE.light, text=[percent(share) for share in figure.data[0].x])
    figure.update_xaxes(title=None, tickformat=".0%", range=[0, 1.12], dtick=0.25)
    figure.update_yaxes(title=None)
    description = describe_importances(importance_shares(study))
    height = 90 + 34 * len(figure.data[0].y)
    return Plot("importances", _finished(figure, height, hovermode=False), description)


def _history_plot(study: StudySummary, compared: optuna.Study) -> Plot:
    if not study.ranked:
        return Plot("history", None, "No trial has an accuracy, so there is no history to plot.")
    figure = optuna.visualization.plot_optimization_history(compared, target_name=ACCURACY)
    points, line = figure.data[:2]
    best = [None if value is None or not math.isfinite(value) else value for value in line.y]
    shown = set(points.x)
    line.update(
        y=best, name="best so far", line={"color": colours.BEST.light, "width": 2, "shape": "hv"}, hoverinfo="skip"
    )
    traces = [line]
    for state in (State.COMPLETE, State.PRUNED):
        trials = [trial for trial in study.of_state(state) if trial.number in shown]
        traces += [_points(state, trials, [trial.number for trial in trials])] * bool(trials)
    figure = go.Figure(traces, figure.layout)
    figure.update_xaxes(range=[-0.5, study.trials[-1].number + 0.5], dtick=1 if len(study.trials) <= 12 else None)
    return Plot("history", _finished(figure, 360), describe_history(study))


def _points(state: State, trials: Sequence[TrialSummary], x: Sequence[Any]) -> go.Scatter:
    colour, symbol, _ = _STYLES[state]
    return go.Scatter(
        x=x,
        y=[trial.accuracy for trial in trials],
        mode="markers",
        name=state.value,
        marker={"color": colour.light, "symbol": symbol, "size": 9},
        text=[_hover(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(trial: TrialSummary) -> str:
    """What a trial's mark says: its number and result, and one hyperparameter a line."""
    values = [f"{axis_label(name)}: {axis_label(_number(value))}" for name, value in trial.hyperparameters.items()]
    result = trial.state.value if trial.accuracy is None else f"{trial.state.value}, {trial.accuracy:.3f}"
    return "<br>".join([f"Trial {trial.number}: {result}", *values])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curves_plot(study: StudySummary, compared: optuna.Study) -> Plot:
    trials = {trial.number: trial for trial in study.trials if trial.accuracies}
    figure = optuna.visualization.plot_intermediate_values(compared)
    # Optuna leaves out failed trials; how far they came is worth seeing too.
    drawn = {int(trace.name.removeprefix("Trial")): trace for trace in figure.data}
    for trial in trials.values():
        if trial.number not in drawn:
            epochs, accuracies = zip(*trial.accuracies, strict=True)
            drawn[trial.number] = go.Scatter(x=epochs, y=accuracies)
    if not drawn:
        return Plot(
            "curves",
            None,
            "The study holds no accuracies of epochs, as with two objectives, so there are no learning curves.",
        )
    best = study.best
    order = sorted(drawn, key=lambda number: (best is not None and number == best.number, number))
    traces: list[go.Scatter] = []
    for number in order:
        is_best = best is not None and number == best.number
        _style_curve(drawn[number], trials[number], is_best=is_best)
        drawn[number].showlegend = all(trace.legendgroup != drawn[number].legendgroup for trace in traces)
        traces.append(drawn[number])
    figure = go.Figure(traces, figure.layout)
    last = max(trial.num_epochs for trial in trials.values())
    figure.update_layout(showlegend=True, xaxis={"title": "Epoch", "dtick": 1 if last <= 12 else None})
    figure.update_yaxes(title=ACCURACY)
    return Plot("curves", _finished(figure, 420), describe_curves(study))


def _style_curve(trace: go.Scatter, trial: TrialSummary, *, is_best: bool) -> None:
    colour, symbol, dash = _STYLES[trial.state]
    name = f"best (trial {trial.number})" if is_best else trial.state.value
    trace.update(
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": (colours.BEST if is_best else colour).light, "dash": dash, "width": 3.5 if is_best else 1.6},
        # One mark, at the end: it tells the states apart without colours.
        marker={"symbol": symbol, "size": [0] * (len(trace.x) - 1) + [9], "maxdisplayed": 0},
        text=[f"{_hover(trial)}<br>epoch {epoch}: {value:.3f}" for epoch, value in zip(trace.x, trace.y, strict=True)],
        hovertemplate="%{text}<extra></extra>",
    )


def _drawn_dimensions(study: StudySummary) -> list[Dimension]:
    """Those of which trials with an accuracy have more than one value."""
    return [
        dimension
        for dimension in study.dimensions
        if len({trial.hyperparameters.get(dimension.name) for trial in study.ranked}) > 1
    ]


def _slice_plot(study: StudySummary, compared: optuna.Study, dimension: Dimension) -> Plot:
    label = axis_label(dimension.name)
    figure = optuna.visualization.plot_slice(compared, params=[label], target_name=ACCURACY)
    by_number = {trial.number: trial for trial in study.ranked}
    place = dict(zip(figure.data[0].marker.color, figure.data[0].x, strict=True))  # trial -> value, on the axis
    traces = []
    for state in (State.COMPLETE, State.PRUNED):
        trials = [by_number[number] for number in place if by_number[number].state is state]
        if trials:
            trace = _points(state, trials, [place[trial.number] for trial in trials])
            trace.marker.opacity = [_opacity(trial.number, study) for trial in trials]
            traces.append(trace)
    figure = go.Figure(traces, figure.layout)
    if dimension.choices is not None:
        choices = figure.layout.xaxis.categoryarray
        figure.update_xaxes(tickvals=choices, ticktext=[_short_label(choice) for choice in dimension.choices])
    elif dimension.is_log:
        figure.update_xaxes(**_log_ticks(dimension))
    figure.update_layout(showlegend=False, xaxis_title=None)
    key = f"slice-{study.dimensions.index(dimension)}"
    return Plot(key, _finished(figure, 300), describe_slice(study, dimension), title=dimension.name)


def _opacity(number: int, study: StudySummary) -> float:
    """Early trials are faint, so that one sees where the search has gone."""
    last = max(trial.number for trial in study.trials)
    return round(0.4 + 0.6 * number / last, 2) if last else 1.0


def _short_label(value: Value) -> str:
    return axis_label(shorten(str(value), _MAX_LABEL))


def _log_ticks(dimension: Dimension) -> Mapping[str, Any]:
    """Powers of ten, and 2 and 5 between them where the range is short, all written out."""
    steps = (1, 2, 5) if dimension.high < 100 * dimension.low else (1,)
    decades = range(math.floor(math.log10(dimension.low)), math.ceil(math.log10(dimension.high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _parallel_plot(study: StudySummary, compared: optuna.Study) -> Plot:
    names = [dimension.name for dimension in _drawn_dimensions(study)]
    if len(names) < 2:
        few = "fewer than two hyperparameters took different values in trials with an accuracy"
        return Plot("parallel", None, f"There is nothing to compare: {few}.")
    figure = optuna.visualization.plot_parallel_coordinate(
        compared, params=[axis_label(name) for name in names], target_name=ACCURACY
    )
    # Optuna draws one line for each trial, in their order, and then a mark that carries the colours' scale.
    lines = figure.data[: len(study.ranked)]
    ordered = sorted(study.ranked, key=lambda trial: trial.number)
    worst, best = accuracy_of(study.ranked[-1]), accuracy_of(study.ranked[0])
    for trial, line in zip(ordered, lines, strict=True):
        is_best = trial is study.best
        colour, _, dash = _STYLES[trial.state]
        height = (accuracy_of(trial) - worst) / (best - worst) if best > worst else 1.0
        line.update(
            line={"color": (colours.BEST if is_best else colour).light, "dash": dash, "width": 3.5 if is_best else 1.8},
            opacity=1.0 if is_best else round(0.25 + 0.6 * height, 2),
            text=[_hover(trial)] * len(line.x),
            hovertemplate="%{text}<extra></extra>",
        )
    figure = go.Figure(lines, figure.layout)
    _write_axes(figure, study, names)
    width = _AXIS_WIDTH * (len(names) + 1)
    return Plot("parallel", _finished(figure, 460), describe_parallel(study, names), min_width=width)


def _write_axes(figure: go.Figure, study: StudySummary, names: Sequence[str]) -> None:
    """Names and values of the axes so that they stay apart, and are legible above the lines."""
    broken = [
        axis_label(name).replace(".", ".<br>").replace("_", "_<br>" if len(name) > _MAX_NAME else "_") for name in names
    ]
    figure.update_xaxes(ticktext=["Accuracy<br>(Dice)", *broken], range=[-0.45, len(names) + 0.35], tickangle=0)
    choices = {axis_label(str(choice)): choice for dimension in study.dimensions for choice in dimension.choices or ()}
    for note in figure.layout.annotations:
        if note.text in choices:
            note.text = _short_label(choices[note.text])
        note.update(font={"size": 11, "color": colours.TEXT.light}, bgcolor=colours.PAPER.light, opacity=0.85)


def _seconds_plot(study: StudySummary) -> Plot:
    trials = timed_trials(study)
    if not trials:
        return Plot("seconds", None, "The duration of the trials was not recorded.")
    bars = [
        go.Bar(
            x=[trial.number for trial in trials if trial.state is state],
            y=[trial.seconds for trial in trials if trial.state is state],
            name=state.value,
            marker={"color": _STYLES[state][0].light, "pattern": {"shape": _PATTERNS[state], "solidity": 0.35}},
            text=[_hover(trial) for trial in trials if trial.state is state],
            textposition="none",
            hovertemplate="%{text}<br>%{y:.0f} s<extra></extra>",
        )
        for state in _PATTERNS
        if any(trial.state is state for trial in trials)
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack", xaxis={"title": "Trial"}, yaxis={"title": "Seconds"}, showlegend=True)
    figure.update_xaxes(dtick=1 if len(study.trials) <= 12 else None)
    return Plot("seconds", _finished(figure, 320), describe_seconds(study))


_PATTERNS = {State.COMPLETE: "", State.PRUNED: "/", State.FAILED: "x", State.INTERRUPTED: "."}


def _finished(figure: go.Figure, height: int, hovermode: str | bool = "closest") -> Mapping[str, Any]:
    """The figure as JSON: its heading stands in the page, and the page's own colours and letters are used."""
    figure.update_layout(
        template="none",
        title=None,
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13, "color": colours.TEXT.light},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hovermode=hovermode,
        hoverlabel={"align": "left"},
    )
    axis = {
        "gridcolor": colours.GRID.light,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    document: Mapping[str, Any] = json.loads(figure.to_json())
    return document
