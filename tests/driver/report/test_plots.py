"""What the plots hold: which trials, told apart how, and why there is none."""

from __future__ import annotations

import json

import pytest

from rml_report.comparison import importance_shares
from rml_report.plots import draw_plots
from rml_search.report.plot import BEST, COLOURS, COMPLETE, FAILED, PRUNED
from rml_search.report.summary import State


@pytest.fixture(scope="module")
def plots(mixed_study):
    return draw_plots(mixed_study)


def traces(plot):
    return {trace["name"]: trace for trace in plot.figure["data"]}


def test_the_history_has_every_trial_under_its_number(plots, mixed_study):
    found = traces(plots.history)
    complete = [trial for trial in mixed_study.trials if trial.state is State.COMPLETE]
    pruned = [trial for trial in mixed_study.trials if trial.state is State.PRUNED]
    assert found["complete"]["x"] == [trial.number for trial in complete]
    assert found["complete"]["y"] == [trial.accuracy for trial in complete]
    assert found["pruned"]["x"] == [trial.number for trial in pruned] == [0, 3, 6, 9]
    assert found["pruned"]["marker"]["symbol"] != found["complete"]["marker"]["symbol"]


def test_the_best_so_far_counts_pruned_trials_and_passes_over_failed_ones(plots):
    """Pruned 0.4, then adam with 0.86, 0.87, 0.89, 0.9, 0.92; trials 8, 10 and 11 brought nothing."""
    best = traces(plots.history)["best so far"]["y"]
    assert best == pytest.approx([0.4, 0.86, 0.87, 0.87, 0.89, 0.9, 0.9, 0.92, 0.92, 0.92, 0.92, 0.92])


def test_learning_curves_tell_the_states_apart_without_colour(plots):
    """Curves of all trials that reached an epoch: all but trial 10."""
    data = plots.curves.figure["data"]
    assert len(data) == 11
    dashes = {trace["legendgroup"]: trace["line"]["dash"] for trace in data}
    assert len({dashes[name] for name in ("complete", "pruned", "failed", "running")}) == 4
    assert sum(trace["showlegend"] for trace in data) == len({trace["legendgroup"] for trace in data}) == 5
    best = data[-1]
    assert (best["name"], best["line"]["color"], best["y"]) == (
        "best (trial 7)",
        BEST.light,
        [0.46, 0.736, 0.874, 0.92],
    )


def test_a_slice_for_every_hyperparameter_with_conditional_ones(plots, mixed_study):
    assert [plot.title for plot in plots.slices] == [dimension.name for dimension in mixed_study.dimensions]
    momentum = next(plot for plot in plots.slices if plot.title == "optimizer.momentum")
    assert momentum.figure["data"][0]["x"] == pytest.approx([0.0, 0.15, 0.3, 0.45])  # SGD's trials alone
    rate = next(plot for plot in plots.slices if plot.title == "optimizer.learning_rate")
    assert rate.figure["layout"]["xaxis"]["type"] == "log"


def test_categories_are_shown_by_their_names(plots):
    kind = next(plot for plot in plots.slices if plot.title == "optimizer.type")
    assert kind.figure["layout"]["xaxis"]["ticktext"] == ["adam", "sgd"]


def test_parallel_coordinates_mark_the_best_and_what_a_trial_lacks(plots):
    data = plots.parallel.figure["data"]
    assert len(data) == 9  # trials with an accuracy
    assert [trace["line"]["width"] for trace in data].count(3.5) == 1
    assert "None" in {note["text"] for note in plots.parallel.figure["layout"]["annotations"]}
    assert plots.parallel.figure["layout"]["xaxis"]["ticktext"][0] == "Accuracy<br>(Dice)"


def test_text_from_outside_is_no_markup(plots, nasty):
    everything = json.dumps([plot.figure for plot in (plots.parallel, plots.history, plots.curves, *plots.slices)])
    assert nasty.split(">")[0] not in everything
    assert "&lt;/script&gt;" in everything


def test_the_colours_are_those_that_the_page_exchanges(plots):
    drawn = json.dumps([plots.history.figure, plots.curves.figure, plots.seconds.figure])
    for colour in (COMPLETE, PRUNED, FAILED, BEST):
        assert colour.light in drawn
    assert len({colour.light for colour in COLOURS}) == len(COLOURS)


def luminance(colour):
    """https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [colour for colour in COLOURS if colour.light not in {"#D9DDE1", "#FFFFFD"}])
def test_marks_contrast_with_the_page(colour):
    """By 3 to 1 at least, as https://www.w3.org/TR/WCAG21/#non-text-contrast has it."""
    for drawn, page in ((colour.light, "#ffffff"), (colour.dark, "#14171a")):
        lighter, darker = sorted((luminance(drawn), luminance(page)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_what_decides_alone_has_nearly_all_importance(study, trial):
    """Accuracy follows the optimizer alone; learning rate and batch size are shuffled."""
    rates, sizes = [0.01, 0.001, 0.02, 0.002, 0.0005, 0.05], [8, 16]
    trials = [
        trial(
            number,
            [0.9 - 0.001 * (number * 7 % 24) if number % 4 == 0 else 0.4 - 0.001 * (number * 5 % 24)],
            optimizer__type="adam" if number % 4 == 0 else "sgd",
            optimizer__learning_rate=rates[number // 4 % 6],
            data__batch_size=sizes[number // 2 % 2],
        )
        for number in range(48)
    ]
    shares = importance_shares(study(*trials))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optimizer.type"] > 0.6
    assert max(shares, key=shares.get) == "optimizer.type"


@pytest.mark.parametrize("num_trials", [1, 2])
def test_with_few_trials_there_are_reasons_instead_of_plots(study, trial, num_trials):
    plots = draw_plots(study(*(trial(number, [0.5], optimizer__type="adam") for number in range(num_trials))))
    assert plots.importances.figure is None
    assert f"{num_trials}." in plots.importances.description
    assert plots.parallel.figure is None
    assert plots.slices == ()
    assert plots.history.figure is not None


def test_a_search_that_only_failed(study, trial):
    plots = draw_plots(study(trial(2, [], State.FAILED, seconds=0.0, optimizer__type="adam")))
    for plot in (plots.importances, plots.history, plots.curves, plots.parallel, plots.seconds):
        assert plot.figure is None
        assert plot.description
