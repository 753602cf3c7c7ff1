"""What ``status`` prints: the live view once, as plain text where nobody looks at a terminal; or one JSON object.

The object has ``settings`` (a line for people), ``is_running`` (true, false, or null where nobody can say),
``num_trials`` (null where nobody has said), ``num_finished``, of these ``num_pruned`` and ``num_failed``,
``seconds_left`` (null where that is not known), ``best``, ``front``, ``failures`` (the last ones: ``trial``,
``reason``), ``notes`` and ``running``, a list of objects with

``trial``, ``hyperparameters``, ``seconds`` (since it began), ``seconds_left``, ``fraction`` (0 to 1, of its training),
``num_epochs``, ``epochs`` (as the event ``epoch`` of ``--json`` has them), ``place`` (who runs it, where several
drivers share the study) and ``is_left`` (its driver was killed: the next one tries it again).

``best`` and ``front`` are those of ``--json``; ``confirmation`` is an object of the same kind, or null.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from rml_search.json_output import json_line
from rml_search.progress import BestTrial, Progress, RunningTrial


def status_text(progress: Progress, *, as_json: bool) -> str:
    """One JSON object, or the rows of the view as wide as the terminal, with colours only there."""
    if as_json:
        return json_line(status_document(progress))
    from rich.console import Console

    from rml_search.live_view import SearchView

    console = Console()
    with console.capture() as capture:
        console.print(SearchView(progress))
        if progress.again is not None:
            console.print("\nThe best trials, retrained with other seeds", style="bold")
            console.print(SearchView(replace(progress.again, noun="run")))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def status_document(progress: Progress) -> dict[str, Any]:
    """The object, as JSON has it but for numbers that are none."""
    tally = progress.tally
    return {
        "settings": progress.settings,
        "is_running": progress.is_running,
        "num_trials": progress.num_trials,
        "num_finished": tally.num_counted,
        "num_pruned": tally.num_pruned,
        "num_failed": tally.num_failed,
        "seconds_left": progress.seconds_left,
        "best": None if progress.best is None else _best(progress.best),
        "front": [_best(trial) for trial in tally.front] if progress.has_front else None,
        "running": [_running(trial) for trial in progress.running],
        "failures": [{"trial": failure.number, "reason": failure.reason} for failure in tally.failures],
        "notes": list(progress.notes),
        "confirmation": None if progress.again is None else status_document(progress.again),
    }


def _best(trial: BestTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "accuracy": trial.accuracy,
        "epoch": trial.epoch,
        "seconds": trial.seconds,
        "hyperparameters": trial.hyperparameters.point,
    }


def _running(trial: RunningTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "hyperparameters": trial.hyperparameters.point,
        "seconds": trial.seconds,
        "seconds_left": trial.seconds_left,
        "fraction": trial.fraction,
        "num_epochs": trial.num_epochs,
        "epochs": [asdict(epoch) for epoch in trial.epochs],
        "place": trial.place,
        "is_left": trial.is_left,
    }
