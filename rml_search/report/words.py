"""What the report says in words: of every plot what it shows, so that nobody needs to see it."""

from __future__ import annotations

import itertools
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence

from rml_search.report.summary import Cost, Dimension, State, StudySummary, TrialSummary, Value, accuracy_of

#: Accuracies that differ by less are not told apart: another seed moves them further.
CLOSE = 0.005

_MIN_FOR_IMPORTANCES = 4
_FEW_TRIALS = 20
_NUM_BEST = 5  #: as the documentation of Optuna's PedAnovaImportanceEvaluator advises


def show_value(value: Value) -> str:
    """A hyperparameter's value, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_seconds(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    for unit, next_unit, size, next_size in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    raise ValueError(f"{seconds} is no number of seconds")


def percent(share: float) -> str:
    """``12 %``, not to be broken; a share that is there but would be none is ``below 1 %``."""
    return f"below {percent(0.01)}" if 0 < share < 0.01 else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def shorten(text: str, length: int = 28) -> str:
    """Cuts the middle out of a long value, such as a path: its beginning and its end tell values apart."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def count(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def list_names(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def program_of(study: StudySummary) -> str:
    """What the command of the search begins with: ``python rml_optimization.py``, or the name of what is installed."""
    words = shlex.split(study.runs[-1].command) if study.runs else []
    words = list(itertools.dropwhile(lambda word: "=" in word, words))
    if words[:1] == ["python"]:
        return shlex.join(words[:2])
    return words[0] if words else "python rml_optimization.py"


def describe_lead(study: StudySummary) -> str:
    """By how much the best trial leads; empty where it is the only one."""
    if len(study.ranked) < 2:
        return "It is the only trial with an accuracy, so there is nothing to compare it with."
    best, second = study.ranked[:2]
    lead = accuracy_of(best) - accuracy_of(second)
    lead_text = f"{lead:.3f} above" if lead >= 0.0005 else "level with"
    text = f"This is {lead_text} the second best, trial {second.number} ({accuracy_of(second):.3f})"
    complete = [accuracy_of(trial) for trial in study.ranked if trial.state is State.COMPLETE]
    if complete:
        median = statistics.median(complete)
        trials = count(len(complete), "complete trial")
        text += f", and {accuracy_of(best) - median:.3f} above the median of the {trials} ({median:.3f})"
    text += "."
    close = sum(accuracy_of(best) - accuracy_of(trial) < CLOSE for trial in study.ranked[1:])
    if close:
        others = count(close, "other trial").capitalize()
        text += f" {others} came within {CLOSE} of it; with another seed, the order could change."
    return text


def describe_confirmation(study: StudySummary) -> str:
    """What became of the best trials when they were trained again."""
    told = []
    for confirmed in study.confirmations:
        runs = count(len(confirmed.accuracies), "run")
        spread = f" +- {statistics.stdev(confirmed.accuracies):.3f}" if len(confirmed.accuracies) > 1 else ""
        told.append(f"trial {confirmed.number} {confirmed.mean:.3f}{spread} ({runs})")
    text = f"Retrained with other seeds, mean and standard deviation of the runs: {'; '.join(told)}."
    winner = study.confirmations[0].number
    if study.best is not None and study.best.number != winner:
        text += f" By this mean, trial {winner} is the best; inference uses its model."
    return text


def describe_front(study: StudySummary) -> str:
    """The trials to choose from where the search had accuracy and time as its objectives."""
    told = [f"trial {trial.number} ({accuracy_of(trial):.3f}, {show_seconds(trial.seconds)})" for trial in study.front]
    return f"Pareto front, trials that no other trial beats in both accuracy and time: {list_names(told)}."


def describe_states(study: StudySummary) -> str:
    """``12 trials: 8 complete, 3 pruned, 1 failed; 2 more were interrupted and do not count``."""
    numbers = {state: len(study.of_state(state)) for state in State}
    num_again = numbers.pop(State.INTERRUPTED)
    told = [f"{number} {state.value}" for state, number in numbers.items() if number]
    text = count(sum(numbers.values()), "trial") + (f": {', '.join(told)}" if told else "")
    if not num_again:
        return text
    was, do = ("was", "does") if num_again == 1 else ("were", "do")
    return f"{text}; {num_again} more {was} interrupted and {do} not count"


# --- plots -----------------------------------------------------------------------------------------------


def why_no_importances(study: StudySummary) -> str | None:
    """Why the hyperparameters cannot be told apart by importance; None where they can."""
    if len(study.ranked) < _MIN_FOR_IMPORTANCES:
        return (
            f"{_MIN_FOR_IMPORTANCES} trials with an accuracy are needed to estimate which hyperparameters matter; "
            f"there {'is' if len(study.ranked) == 1 else 'are'} {len(study.ranked)}."
        )
    varied = [dimension for dimension in study.dimensions if len(values_of(study, dimension)) > 1]
    if not varied:
        return "No hyperparameter took more than one value, so importances cannot be estimated."
    num_best = math.ceil(best_share(study) * len(study.ranked))
    if accuracy_of(study.ranked[-1]) == accuracy_of(study.ranked[num_best - 1]):
        return "Too many trials reached the same accuracy to estimate which hyperparameters matter."
    return None


def best_share(study: StudySummary) -> float:
    """The part (0 to 0.5) of the trials that counts as the best: a tenth, but five trials where there are so many."""
    return min(0.5, max(0.1, _NUM_BEST / len(study.ranked)))


def values_of(study: StudySummary, dimension: Dimension) -> list[Value]:
    """The values, each once, that the trials with an accuracy have had of a hyperparameter."""
    name = dimension.name
    return list(dict.fromkeys(trial.hyperparameters[name] for trial in study.ranked if name in trial.hyperparameters))


def describe_importances(shares: Mapping[str, float]) -> str:
    """The order of the hyperparameters."""
    told = [f"{name} {percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])]
    return f"Share of each hyperparameter in what sets the best trials apart: {', '.join(told)}."


def caution(study: StudySummary) -> str | None:
    """How far the importances can be trusted; None where there are trials enough."""
    if len(study.ranked) >= _FEW_TRIALS:
        return None
    return f"{len(study.ranked)} trials are few: treat this as a hint only."


def describe_history(study: StudySummary) -> str:
    """The first accuracy, and each trial that was the best so far."""
    steps: list[TrialSummary] = []
    for trial in sorted(study.ranked, key=lambda trial: trial.number):
        if not steps or accuracy_of(trial) > accuracy_of(steps[-1]):
            steps.append(trial)
    told = [f"trial {trial.number} ({accuracy_of(trial):.3f})" for trial in steps]
    start = "Accuracy of each trial; the line shows the best so far. "
    if len(steps) == 1:
        return f"{start}The first one, {told[0]}, is still the best."
    shown = told if len(told) <= 6 else [*told[:2], "…", *told[-3:]]
    return f"{start}The best so far was, in turn, {', '.join(shown)}."


def describe_curves(study: StudySummary) -> str:
    """How many curves of which kind, and where the best one went."""
    kinds = {state: sum(bool(trial.accuracies) for trial in study.of_state(state)) for state in State}
    told = [f"{number} {state.value}" for state, number in kinds.items() if number]
    text = f"Accuracy of each trial after every epoch, with a mark at its end: {', '.join(told)}."
    best = study.best
    if best is None or not best.accuracies:
        return text
    first, last = best.accuracies[0], best.accuracies[-1]
    return (
        f"{text} The best, trial {best.number}, started at {first[1]:.3f}, reached {accuracy_of(best):.3f} in epoch "
        f"{best.best_epoch} and ended at {last[1]:.3f} in epoch {last[0]}."
    )


def describe_slice(study: StudySummary, dimension: Dimension) -> str:
    """The accuracies by value, or where in a range the best trials lie."""
    return f"Accuracy by {dimension.name}: {describe_effect(study, dimension)}."


def describe_effect(study: StudySummary, dimension: Dimension) -> str:
    """What came of the values of a hyperparameter."""
    trials = [trial for trial in study.ranked if dimension.name in trial.hyperparameters]
    if dimension.choices is None:
        return _effect_of_range(trials, dimension)
    told = []
    for choice in dimension.choices:
        chosen = [trial for trial in trials if trial.hyperparameters[dimension.name] == choice]
        if chosen:
            told.append((-accuracy_of(chosen[0]), f"{show_value(choice)} ({_outcome(chosen)})"))
    return "; ".join(text for _, text in sorted(told))


def _outcome(ranked: Sequence[TrialSummary]) -> str:
    """``best 0.911, median 0.884, 18 trials, 9 of them pruned``; a median of whole trainings alone."""
    complete = [accuracy_of(trial) for trial in ranked if trial.state is State.COMPLETE]
    num_pruned = len(ranked) - len(complete)
    parts = [f"best {accuracy_of(ranked[0]):.3f}"]
    if len(complete) > 1:
        parts.append(f"median {'of the complete ' if num_pruned else ''}{statistics.median(complete):.3f}")
    parts.append(count(len(ranked), "trial"))
    if num_pruned:
        parts.append("pruned" if num_pruned == len(ranked) else f"{num_pruned} of them pruned")
    return ", ".join(parts)


def _effect_of_range(trials: Sequence[TrialSummary], dimension: Dimension) -> str:
    best = trials[: max(1, len(trials) // 4)]
    values = sorted(value for trial in best if isinstance(value := trial.hyperparameters[dimension.name], (int, float)))
    searched = f"searched from {dimension.low:.4g} to {dimension.high:.4g}"
    if not values:
        return searched
    if len(values) == 1:
        return f"the best of {count(len(trials), 'trial')} had {values[0]:.4g}; {searched}"
    return f"the best {len(values)} of {len(trials)} trials had {values[0]:.4g} to {values[-1]:.4g}; {searched}"


def describe_parallel(study: StudySummary, names: Sequence[str]) -> str:
    """What the lines are, and the way of the best one."""
    best = study.best
    text = (
        f"One line per trial, through its accuracy and {list_names(list(names))}; better trials are more opaque, "
        "and None means that a trial does not have this hyperparameter."
    )
    if best is None:
        return text
    values = [f"{name} {show_value(best.hyperparameters[name])}" for name in names if name in best.hyperparameters]
    return f"{text} The best trial goes through {accuracy_of(best):.3f}, {', '.join(values)}."


def timed_trials(study: StudySummary) -> list[TrialSummary]:
    """The trials that have ended and whose time is known."""
    return [trial for trial in study.trials if trial.state is not State.RUNNING and trial.seconds > 0]


def describe_seconds(study: StudySummary) -> str:
    """The longest and the shortest trial."""
    trials = timed_trials(study)
    longest, shortest = (pick(trials, key=lambda trial: trial.seconds) for pick in (max, min))
    text = f"Duration of each trial. The longest, trial {longest.number}, took {show_seconds(longest.seconds)}"
    if longest is shortest:
        return f"{text}."
    return f"{text}, the shortest, trial {shortest.number}, {show_seconds(shortest.seconds)}."


# --- cost ------------------------------------------------------------------------------------------------


def describe_cost(cost: Cost, num_epochs: int | None) -> str:
    """What the search took, and what pruning spared."""
    text = f"The trials took {show_seconds(cost.seconds)} in total, for {count(cost.num_epochs, 'epoch')} of training"
    if cost.num_epochs:
        text += f", {show_seconds(cost.seconds_of_an_epoch)} per epoch including start-up and evaluation"
    text += "."
    if cost.wall_seconds is not None:
        text += f" Wall-clock time from start to end, pauses included: {show_seconds(cost.wall_seconds)}."
    if cost.saved_epochs:
        saved = count(cost.saved_epochs, "epoch")
        text += f" Stopping trials early saved {saved}, about {show_seconds(cost.saved_seconds)}."
    elif num_epochs is not None and not any(share.state is State.PRUNED for share in cost.shares):
        text += " No trial was stopped early."
    return text
