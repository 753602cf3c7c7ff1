"""A search as one screen of text: what stands where, and what gives way where there is little room.

Every line is one row of the terminal. The settings, the two bars and the best trial are always there; then come the
running trials, in two rows each or in one, then failures, then notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rml_search.progress import Progress, RunningTrial, accuracy_range, duration, sparkline

_TITLE = "bold"
_QUIET = "dim"
_GOOD = "bold green"
_BAD = "red"

#: A narrower terminal gets no curves, and counts without words.
_MIN_WIDTH_OF_ALL = 50


@dataclass(frozen=True)
class SearchView:
    """Draws a search into the width and height that the console has.

    Attributes:
        height: rows to fill at most; None: as many as it takes.
    """

    progress: Progress
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The rows, cut to the width."""
        width, ascii_only = options.max_width, options.ascii_only
        for row in self._rows(width, ascii_only):
            if isinstance(row, Text):
                row.truncate(width, overflow="crop" if ascii_only else "ellipsis")
                row.no_wrap, row.end = True, ""
                yield row
                yield Segment.line()
            else:
                yield row

    def _rows(self, width: int, ascii_only: bool) -> list[RenderableType]:
        progress = self.progress
        head: list[RenderableType] = [Text(progress.settings, _TITLE), *_bars(progress, width)]
        best = _best_rows(progress)
        last_failures = progress.tally.failures
        failures = [Text(f"  trial {failure.number}: {_line(failure.reason)}", _BAD) for failure in last_failures]
        notes = [Text(f"  {_line(note)}", _QUIET) for note in progress.notes]
        titles = ("Failed", "Notes")
        if self.height is None:
            trials = _trial_rows(progress.running, width, None, ascii_only)
            return _laid_out(head, trials, best, list(zip(titles, (failures, notes), strict=True)), spaced=True)
        room = self.height - len(head) - len(best)
        trials = _trial_rows(progress.running, width, room, ascii_only)
        room -= len(trials)
        last: list[tuple[str, list[Text]]] = []
        for title, rows in zip(titles, (failures, notes), strict=True):
            shown = rows[-min(3, room - 1) :] if room > 1 else []
            room -= len(shown) + bool(shown)
            last.append((title, shown))
        num_blocks = 2 + sum(bool(rows) for _, rows in last)
        rows_laid_out = _laid_out(head, trials, best, last, spaced=room >= num_blocks)
        return rows_laid_out[: self.height]


def _laid_out(
    head: Sequence[RenderableType],
    trials: Sequence[Text],
    best: Sequence[Text],
    last: Sequence[tuple[str, list[Text]]],
    *,
    spaced: bool,
) -> list[RenderableType]:
    blocks: list[Sequence[RenderableType]] = [head, trials, best]
    blocks += [[Text(title, _TITLE), *rows] for title, rows in last if rows]
    laid_out: list[RenderableType] = []
    for block in blocks:
        if spaced and laid_out and block:
            laid_out.append(Text())
        laid_out.extend(block)
    return laid_out


def _bars(progress: Progress, width: int) -> list[Table]:
    tally, at_work = progress.tally, progress.at_work
    counts = f"{tally.num_counted}/{'?' if progress.num_trials is None else progress.num_trials}"
    bad = [(tally.num_pruned, "pruned"), (tally.num_failed, "failed")] if width >= _MIN_WIDTH_OF_ALL else []
    told = "".join(f", {number} {word}" for number, word in bad if number)
    num_epochs = sum(trial.num_epochs for trial in at_work)
    num_done = sum(trial.num_done for trial in at_work)
    slowest = [trial.seconds_left for trial in at_work]
    left = None if not slowest or None in slowest else max(value for value in slowest if value is not None)
    return [
        _bar("Trials", progress.trials_done, progress.num_trials, counts + told, progress.seconds_left),
        _bar("Epochs", num_done, num_epochs, f"{num_done}/{num_epochs}", left),
    ]


def _bar(name: str, done: float, total: int | None, counts: str, seconds_left: float | None) -> Table:
    """A row: a name, a bar that takes what is left of the width, a count, and the time left."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=6, no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=12)
    bar = ProgressBar(
        total=max(1.0, float(total or 1)), completed=done if total else 0.0, finished_style="bar.complete"
    )
    table.add_row(Text(name, _TITLE), bar, Text(counts), Text(f"{duration(seconds_left)} left", _QUIET))
    return table


def _best_rows(progress: Progress) -> list[Text]:
    best = progress.best
    if best is None:
        return [Text.assemble(("Best     ", _TITLE), ("no trial has ended well yet", _QUIET))]
    where = f", trial {best.number}" + ("" if best.epoch is None else f", epoch {best.epoch}")
    rows = [Text.assemble(("Best     ", _TITLE), (f"{best.accuracy:.3f}", _GOOD), f"{where}: {best.hyperparameters}")]
    if progress.has_front and progress.tally.front:
        ended = [f"{one.accuracy:.3f} in {one.seconds:.0f} s (trial {one.number})" for one in progress.tally.front]
        rows.append(Text.assemble(("Front    ", _TITLE), ", ".join(ended)))
    return rows


def _trial_rows(running: Sequence[RunningTrial], width: int, room: int | None, ascii_only: bool) -> list[Text]:
    """Two rows for each trial, or one where two do not fit; the last row counts those that do not fit at all."""
    if not running:
        return [Text("No trial is running", _QUIET)] if room is None or room > 0 else []
    low, high = accuracy_range(running)
    if room is None or 2 * len(running) <= room:
        return [row for trial in running for row in _two_rows(trial, width, low, high, ascii_only)]
    num_shown = len(running) if len(running) <= room else max(0, room - 1)
    rows = [_one_row(trial, width, low, high, ascii_only) for trial in running[:num_shown]]
    if num_shown < len(running) and room > 0:
        rows.append(Text(f"  and {len(running) - num_shown} more trials", _QUIET))
    return rows


def _two_rows(trial: RunningTrial, width: int, low: float, high: float, ascii_only: bool) -> list[Text]:
    place = "" if trial.place is None else f" ({trial.place})"
    first = Text.assemble((f"Trial {trial.number}", _TITLE), f"{place}: {trial.hyperparameters}")
    words = f"  epoch {_epoch(trial)}, {_accuracy(trial)}"
    best = trial.best
    if best is not None and best.accuracy is not None and width >= _MIN_WIDTH_OF_ALL:
        words += f", best {best.accuracy:.3f} in {best.epoch}"
    time_left = "was killed" if trial.is_left else f"{duration(trial.seconds_left)} left"
    room = width - len(words) - len(time_left) - 5
    curve = sparkline(trial.accuracies, min(room, trial.num_epochs), low, high, ascii_only=ascii_only)
    gap = " " * max(1, width - len(words) - len(curve) - len(time_left) - 2)
    return [first, Text.assemble(words, "  ", (curve, "cyan"), gap[:-1] or " ", (time_left, _QUIET))]


def _one_row(trial: RunningTrial, width: int, low: float, high: float, ascii_only: bool) -> Text:
    curve_width = 8 if width >= _MIN_WIDTH_OF_ALL else 0
    curve = sparkline(trial.accuracies, min(curve_width, trial.num_epochs), low, high, ascii_only=ascii_only)
    return Text.assemble(
        (f"Trial {trial.number}", _TITLE),
        f" {_epoch(trial)} {_accuracy(trial).removeprefix('accuracy ')} ",
        (curve, "cyan"),
        f" {trial.hyperparameters}",
    )


def _epoch(trial: RunningTrial) -> str:
    return f"{trial.num_done}/{trial.num_epochs}"


def _accuracy(trial: RunningTrial) -> str:
    return f"accuracy {trial.accuracies[-1]:.3f}" if trial.accuracies else "begins"


def _line(text: str) -> str:
    """Any text as one line that moves no cursor."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
