"""Tables and lines for people: a search on a terminal, or in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap

from tabulate import tabulate

from rml_search.confirmation import Confirmed, KeptWinner
from rml_search.dataset import DataSetSummary
from rml_search.doctor import Diagnosis
from rml_search.hyperparameters import Hyperparameters, show_value
from rml_search.image_scores import MeanScores
from rml_search.inference import InferenceResult
from rml_search.options import PRECISION_VARIABLE, SearchOptions, StudyChoice
from rml_search.paths import shown
from rml_search.prepare import PrepareSummary
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult, TrialState, best_epoch, best_record, pareto_front
from rml_search.runtime.choice import ReadyRuntime
from rml_search.search_space import LAYERS, LEARNING_RATE, Dimension
from rmldnn_contract.training_log import EpochRecord

#: Both columns of a table together stay below 80 characters.
_COLUMN_WIDTHS = (24, 46)
_SCREEN_WIDTH = 79  #: of what is no table
_NAME_WIDTH = 17  #: of what the doctor looks for

_COMPLETE = TrialState.COMPLETE

Rows = Sequence[tuple[str, str]]


def grid(rows: Rows, headers: tuple[str, str]) -> str:
    """A table of two columns that fits a terminal of 80 columns."""
    return tabulate(rows, headers=headers, tablefmt="grid", maxcolwidths=list(_COLUMN_WIDTHS), disable_numparse=True)


def settings_rows(
    options: SearchOptions, study: StudyChoice, data: DataSetSummary | None, ready: ReadyRuntime, num_jobs: int | None
) -> list[tuple[str, str]]:
    """What a search is about to do, as (name, value)."""
    scheduler = f"Exponential, gamma {options.lr_scheduler_gamma or 1:g}"
    own = "in the configuration" if options.base is not None else "none"
    return [
        ("Trials", str(options.num_trials)),
        ("Epochs of a trial", str(options.num_epochs)),
        *([] if options.base is None else [("Configuration", shown(options.base.path))]),
        ("Optimizers", ", ".join(options.optimizers)),
        ("Losses", ", ".join(options.losses)),
        ("Learning rate", str(options.space[LEARNING_RATE].domain)),
        *((dimension.name, _describe(dimension)) for dimension in options.space.others if dimension.name != LAYERS),
        ("Learning rate scheduler", own if options.lr_scheduler_gamma is None else scheduler),
        ("Network", ", ".join(map(shown, options.layers)) or own),
        ("Transfer learning", str(options.transfer_learning or own)),
        ("Data", own if options.data is None else shown(options.data)),
        *([] if data is None else [("Training images", str(data.train)), ("Test images", str(data.test))]),
        ("Epoch and trial chosen on", _chosen_on(options)),
        ("Image size", own if options.image_size is None else "{} x {}".format(*options.image_size)),
        ("Batch size", f"{_batch_size(options)} (test {options.test_batch_size})"),
        ("Precision", f"{os.environ[PRECISION_VARIABLE]}, set by {PRECISION_VARIABLE}")
        if PRECISION_VARIABLE in os.environ
        else ("Precision", "the engine's default"),
        ("Seed", "none" if options.seed is None else str(options.seed)),
        ("Objectives", ", ".join(objective.value for objective in options.objectives)),
        ("Sampler, pruner", f"{study.sampler.value}, {_pruner(options, study)}"),
        ("Runtime", f"{ready.runtime.describe()}, because {ready.reason}"),
        ("Device", ready.device),
        ("Processes of a trial", str(options.num_procs)),
        ("Trials at a time", "auto" if num_jobs is None else str(num_jobs)),
    ]


def settings_table(rows: Rows) -> str:
    """The settings as a table."""
    return grid(rows, ("Setting", "Value"))


def _batch_size(options: SearchOptions) -> str:
    is_searched = any(dimension.path == "data.batch_size" for dimension in options.dimensions)
    return "searched" if is_searched else str(options.batch_size)


def _pruner(options: SearchOptions, study: StudyChoice) -> str:
    return study.pruner.value if len(options.objectives) == 1 else "none (there are two objectives)"


def _chosen_on(options: SearchOptions) -> str:
    if options.validation_fraction is None:
        return "the test images"
    return f"{options.validation_fraction:.0%} of the training images, held out"


def _describe(dimension: Dimension) -> str:
    """What a dimension may be, and under which conditions."""
    conditions = [f"{name} is {' or '.join(map(show_value, values))}" for name, values in dimension.when]
    return str(dimension.domain) + (f"; where {' and '.join(conditions)}" if conditions else "")


def pareto_table(records: Sequence[TrialRecord]) -> str:
    """The trials that no other one beats in accuracy and in seconds."""
    rows = [
        (record.number, f"{record.max_acc:.3f}", f"{record.seconds:.1f}", str(Hyperparameters.from_point(record.point)))
        for record in pareto_front(records)
    ]
    headers = ("Trial", "Accuracy", "Seconds", "Hyperparameters")
    table = tabulate(rows, headers=headers, tablefmt="grid", disable_numparse=True, maxcolwidths=[None, None, None, 44])
    return f"Pareto front (trials that no other trial beats in both accuracy and time):\n{table}"


def best_table(
    records: Sequence[TrialRecord],
    *,
    by_validation: bool = False,
    confirmed: KeptWinner | None = None,
    test_accuracy: float | None = None,
) -> str:
    """The number of finished trials, and the best one's hyperparameters, chosen on validation images or not.

    ``confirmed`` is the trial whose model inference uses instead, trained again with other seeds. ``test_accuracy`` is
    what the model that inference uses has reached on test images which had no part in choosing it.
    """
    counted = [record for record in records if not record.tried_again]
    numbers = {state: sum(record.state is state for record in counted) for state in TrialState}
    told = [f"{number} {state.value}" for state, number in numbers.items() if number and state is not _COMPLETE]
    head = f"Number of finished trials: {len(counted)}" + (f" ({', '.join(told)})" if told else "")
    best = best_record(records)
    if best is None:
        return f"{head}\nNo trial has an accuracy."
    rows = [
        ("Optimizer", best.optimizer),
        ("Loss", best.loss),
        ("Learning rate", f"{best.lr:.6g}"),
        *((name, show_value(value)) for name, value in Hyperparameters.from_point(best.point).others),
        ("Accuracy (Dice)", f"{best.max_acc:.3f}"),
        ("Epoch", str(best.epoch_max_acc)),
        ("Trial", str(best.number)),
    ]
    table = grid(rows, ("Best hyperparameters", "Value"))
    chosen = "the test images: expect slightly less on others"
    if by_validation:
        chosen = "validation images, and on no test image"
    sentences = [f"Epoch and trial were chosen on {chosen}."]
    if confirmed is not None:
        num_runs = len(confirmed.accuracies)
        sentences.append(
            f"Retrained with other seeds, trial {confirmed.trial} is the best: accuracy {_mean(confirmed)}, over "
            f"{num_runs} run{'' if num_runs == 1 else 's'}. infer uses its model, in best_model/confirmed/."
        )
    if by_validation and test_accuracy is not None:
        sentences.append(f"On the test images, {'its' if confirmed else 'the best'} model reached {test_accuracy:.3f}.")
    lines = [line for sentence in sentences for line in wrap(sentence, _SCREEN_WIDTH)]
    return "\n".join([head, table, *lines])


def _mean(confirmed: Confirmed | KeptWinner) -> str:
    """``0.800 +- 0.071``: mean and standard deviation of the runs."""
    return f"{confirmed.mean:.3f}" + ("" if confirmed.deviation is None else f" +- {confirmed.deviation:.3f}")


def confirmation_table(ranked: Sequence[Confirmed]) -> str:
    """The trials that were trained again, by the mean of their accuracies."""
    rows = []
    for confirmed in ranked:
        runs = f"{len(confirmed.runs)}" + (f" ({confirmed.num_failed} failed)" if confirmed.num_failed else "")
        point = str(Hyperparameters.from_point(confirmed.trial.point))
        mean = _mean(confirmed) if confirmed.runs else "all failed"
        rows.append((confirmed.trial.number, f"{confirmed.trial.max_acc:.3f}", mean, runs, point))
    headers = ("Trial", "Search", "Retrained", "Runs", "Hyperparameters")
    table = tabulate(rows, headers=headers, tablefmt="grid", disable_numparse=True, maxcolwidths=[5, 6, 15, 5, 30])
    return f"The best trials, retrained with other seeds (mean and standard deviation of the runs):\n{table}"


def test_accuracy_table(result: InferenceResult) -> str:
    """What the best model reaches on images that had no part in choosing it."""
    rows = [
        ("Loss", "no targets" if result.loss is None else f"{result.loss:.4f}"),
        ("Accuracy (Dice)", "no targets" if result.accuracy is None else f"{result.accuracy:.3f}"),
    ]
    return grid(rows, ("Best model on the test images", "Value"))


def inference_table(result: InferenceResult) -> str:
    """Loss and accuracy of an inference, and where its predictions are."""
    rows = [
        ("Loss", "no targets" if result.loss is None else f"{result.loss:.4f}"),
        ("Accuracy (Dice)", "no targets" if result.accuracy is None else f"{result.accuracy:.3f}"),
    ]
    rows += [("Predictions", shown(path)) for path in result.predictions]
    return grid(rows, ("Inference", "Value"))


def scores_table(means: Sequence[MeanScores]) -> str:
    """The means over images of each class and of all; pooled, each pixel counts the same."""
    rows = [
        (
            one.name,
            one.num_images,
            f"{one.dice:.3f}",
            f"{one.iou:.3f}",
            "-" if one.hd95 is None else f"{one.hd95:.1f} ({one.num_with_distance})",
            "-" if one.pooled_dice is None else f"{one.pooled_dice:.3f}",
            "-" if one.pooled_iou is None else f"{one.pooled_iou:.3f}",
        )
        for one in means
    ]
    headers = ("Lesion", "Images", "Dice", "IoU", "HD95, px\n(images)", "Pooled\nDice", "Pooled\nIoU")
    return tabulate(rows, headers=headers, tablefmt="grid", disable_numparse=True)


def prepare_table(summary: PrepareSummary) -> str:
    """How many images of each class went where."""
    rows = [(split.name or "(no class)", split.num_train, split.num_test) for split in summary.classes]
    rows.append(("total", summary.num_train, summary.num_test))
    table = tabulate(rows, headers=("Class", "Training images", "Test images"), tablefmt="grid")
    remarks = []
    if summary.num_left_out:
        remarks.append(f"{summary.num_left_out} images are not in the split and were left out")
    if summary.num_leaking:
        leaking = "1 test image has" if summary.num_leaking == 1 else f"{summary.num_leaking} test images have"
        remarks.append(f"{leaking} a copy among the training images: scores will be too high")
    return "\n".join([table, *remarks])


def doctor_table(diagnosis: Diagnosis) -> str:
    """What a search needs, line by line in 80 columns, with what to do about what is missing."""
    lines = []
    for finding in diagnosis.findings:
        head = f"{'yes' if finding.is_there else 'no':<5}{finding.name:<{_NAME_WIDTH}}"
        lines += _indented(finding.detail, head)
        if finding.advice is not None:
            lines += _indented(finding.advice, " " * len(head) + "-> ")
    if diagnosis.obstacle is not None:
        return "\n".join([*lines, "", "A search cannot run yet."])
    # An option and its value stay in one line.
    whole = [runtime.replace(" ", "\N{NO-BREAK SPACE}") for runtime in diagnosis.runtimes]
    can_run = [
        line.replace("\N{NO-BREAK SPACE}", " ") for line in _indented(" or ".join(whole), "A search can run with: ")
    ]
    return "\n".join([*lines, "", *can_run])


def _indented(text: str, head: str) -> list[str]:
    return wrap(text, _SCREEN_WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


class PlainObserver:
    """Prints one line for each trial that starts, each epoch, and each trial that ends.

    ``noun`` is what a trial is called: where trials are trained again, their runs have numbers of their own.
    """

    def __init__(self, options: SearchOptions, show: Callable[[str], None], noun: str = "trial") -> None:
        self._num_trials = options.num_trials
        self._noun = noun
        self._show = show
        self._epochs: dict[int, list[EpochRecord]] = {}

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """``Trial 3 (4 of 50): adam, bce, learning rate 0.00143``."""
        self._epochs[number] = []
        self._show(f"{self._noun.capitalize()} {number} ({place} of {self._num_trials}): {hyperparameters}")

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """Nothing: a file need not grow between two epochs."""

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """``  epoch  7/50: accuracy 0.842, loss 0.1234 (best 0.851 in epoch 5)``."""
        self._epochs[number].append(epoch)
        best = best_epoch(self._epochs[number])
        width = len(str(epoch.num_epochs))
        loss = "" if epoch.test_loss is None else f", loss {epoch.test_loss:.4f}"
        so_far = "" if best is None or best.accuracy is None else f" (best {best.accuracy:.3f} in epoch {best.epoch})"
        self._show(
            f"  {self._noun} {number}, epoch {epoch.epoch:{width}}/{epoch.num_epochs}: "
            f"accuracy {epoch.accuracy:.3f}{loss}{so_far}"
        )

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """``Trial 3 complete after 12 s: accuracy 0.851 in epoch 5 (best 0.904, trial 1)``."""
        self._epochs.pop(result.number, None)
        name, seconds, reason = f"{self._noun.capitalize()} {result.number}", f"{result.seconds:.0f} s", result.reason
        if result.is_broken_off:
            self._show(f"{name} unfinished after {seconds}: {reason}")
            return
        head = f"{name} {result.state.value} after {seconds}: "
        if result.state is TrialState.FAILED:
            self._show(head + (reason or "for an unknown reason"))
            return
        if reason is not None and reason.startswith(TrialState.PRUNED.value):  # after which epoch, it says
            head, reason = f"{name} {reason}, {seconds}: ", None
        epoch = result.best_epoch
        text = "" if epoch is None else f"accuracy {epoch.accuracy:.3f} in epoch {epoch.epoch}"
        if best is not None and best.max_acc is not None:
            is_best = best.number == result.number
            text += ", the best so far" if is_best else f" (best {best.max_acc:.3f}, {self._noun} {best.number})"
        self._show(head + text + (f"; {reason}" if reason else ""))

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """Nothing: each driver tells of its own trials."""

    def note(self, text: str) -> None:
        """The text, as it is."""
        self._show(text)
