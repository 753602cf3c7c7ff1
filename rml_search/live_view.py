"""A search as one screen of text: what stands where, and what gives way where there is little room.

Every line is one row of the terminal. The settings, the two bars and the best trial are always there; then come the
running trials, in two rows each or in one, then failures, then notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from rml_search.progress import BestTrial, Progress, RunningTrial, accuracy_range, duration, sparkline

_TITLE = "bold"
_QUIET = "dim"
_GOOD = "bold green"
_BAD = "red"

#: A narrower terminal gets no curves, and counts without words.
_MIN_WIDTH_OF_ALL = 50
_MIN_WIDTH_OF_BAR = 5
_WIDTH_OF_TIME = 12


@dataclass(frozen=True)
class _Paper:
    """What rows are written on: how wide it is, and which characters it takes."""

    width: int
    ascii_only: bool


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
        paper = _Paper(options.max_width, options.ascii_only)
        for row in self._rows(paper):
            row.truncate(paper.width, overflow="crop" if paper.ascii_only else "ellipsis")
            row.no_wrap, row.end = True, ""
            yield row
            yield Segment.line()

    def _rows(self, paper: _Paper) -> list[Text]:
        progress = self.progress
        head: list[Text] = [Text(_whole_items(_line(progress.settings), paper), _TITLE), *_bars(progress, paper)]
        best = _best_rows(progress)
        told = [f"{progress.noun} {failure.number}: {_line(failure.reason)}" for failure in progress.tally.failures]
        noted = [_line(note) for note in progress.notes]
        titles = ("Failed", "Notes")
        if self.height is None:
            trials = _trial_rows(progress, paper, None)
            whole = (_wrapped(told, paper, _BAD), _wrapped(noted, paper, _QUIET))
            return _laid_out(head, trials, best, list(zip(titles, whole, strict=True)), spaced=True)
        failures = [Text(f"  {line}", _BAD) for line in told]
        notes = [Text(f"  {line}", _QUIET) for line in noted]
        room = self.height - len(head) - len(best)
        trials = _trial_rows(progress, paper, room)
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
    head: Sequence[Text],
    trials: Sequence[Text],
    best: Sequence[Text],
    last: Sequence[tuple[str, list[Text]]],
    *,
    spaced: bool,
) -> list[Text]:
    blocks: list[Sequence[Text]] = [head, trials, best]
    blocks += [[Text(title, _TITLE), *rows] for title, rows in last if rows]
    laid_out: list[Text] = []
    for block in blocks:
        if spaced and laid_out and block:
            laid_out.append(Text())
        laid_out.extend(block)
    return laid_out


def _wrapped(lines: Sequence[str], paper: _Paper, style: str) -> list[Text]:
    """Whole sentences, on as many rows as they take."""
    rows = [wrap(line, paper.width, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return [Text(row, style) for wrapped in rows for row in wrapped]


def _bars(progress: Progress, paper: _Paper) -> list[Text]:
    tally, at_work = progress.tally, progress.at_work
    counts = f"{tally.num_counted}/{'?' if progress.num_trials is None else progress.num_trials}"
    bad = [(tally.num_pruned, "pruned"), (tally.num_failed, "failed")] if paper.width >= _MIN_WIDTH_OF_ALL else []
    told = "".join(f", {number} {word}" for number, word in bad if number)
    num_epochs = sum(trial.num_epochs for trial in at_work)
    num_done = sum(trial.num_done for trial in at_work)
    slowest = [trial.seconds_left for trial in at_work]
    left = None if not slowest or None in slowest else max(value for value in slowest if value is not None)
    trials = progress.trials_done / progress.num_trials if progress.num_trials else 0.0
    epochs = sum(trial.fraction * trial.num_epochs for trial in at_work) / num_epochs if num_epochs else 0.0
    name = f"{progress.noun.capitalize()}s".ljust(len("Epochs"))
    bars = [_bar(name, trials, counts + told, progress.seconds_left, paper)]
    if at_work or progress.is_running is not False:
        bars.append(_bar("Epochs", epochs, f"{num_done}/{num_epochs}", left, paper))
    return bars


def _bar(name: str, share: float, counts: str, seconds_left: float | None, paper: _Paper) -> Text:
    """A row: a name, a bar that takes what is left of the width, a count, and the time left."""
    is_done = share >= 1.0 and seconds_left is None
    time_left = ("done" if is_done else f"{duration(seconds_left)} left").rjust(_WIDTH_OF_TIME)
    room = paper.width - len(name) - len(counts) - len(time_left) - 3
    if room < _MIN_WIDTH_OF_BAR:
        return Text.assemble((name, _TITLE), f" {counts} ", ("done" if is_done else duration(seconds_left), _QUIET))
    done = round(room * min(1.0, share))
    full, empty = "#-" if paper.ascii_only else "━─"
    bar = ((full * done, "green"), (empty * (room - done), _QUIET))
    return Text.assemble((name, _TITLE), " ", *bar, f" {counts} ", (time_left, _QUIET))


def _best_rows(progress: Progress) -> list[Text]:
    best = progress.best
    if best is None:
        return [Text.assemble(("Best     ", _TITLE), ("no successful trial yet", _QUIET))]
    where = f", {progress.noun} {best.number}" + ("" if best.epoch is None else f", epoch {best.epoch}")
    rows = [Text.assemble(("Best     ", _TITLE), (f"{best.accuracy:.3f}", _GOOD), f"{where}: {_point(best)}")]
    if progress.has_front and progress.tally.front:
        noun, front = progress.noun, progress.tally.front
        ended = [f"{one.accuracy:.3f} in {one.seconds:.0f} s ({noun} {one.number})" for one in front]
        rows.append(Text.assemble(("Front    ", _TITLE), ", ".join(ended)))
    return rows


def _trial_rows(progress: Progress, paper: _Paper, room: int | None) -> list[Text]:
    """Two rows for each trial, or one where two do not fit; the last row counts those that do not fit at all."""
    running, name = progress.running, progress.noun.capitalize()
    if not running:
        return [Text("No trial is running", _QUIET)] if room is None or room > 0 else []
    scale = accuracy_range(running)
    if room is None or 2 * len(running) <= room:
        return [row for trial in running for row in _two_rows(name, trial, paper, scale)]
    num_shown = len(running) if len(running) <= room else max(0, room - 1)
    rows = [_one_row(name, trial, paper, scale) for trial in running[:num_shown]]
    if num_shown < len(running) and room > 0:
        rows.append(Text(f"  and {len(running) - num_shown} more {progress.noun}s", _QUIET))
    return rows


def _two_rows(name: str, trial: RunningTrial, paper: _Paper, scale: tuple[float, float]) -> list[Text]:
    place = "" if trial.place is None else f" ({trial.place})"
    first = Text.assemble((f"{name} {trial.number}", _TITLE), f"{place}: {_point(trial)}")
    words = f"  epoch {_epoch(trial)}, {_accuracy(trial)}"
    time_left = "was killed" if trial.is_left else f"{duration(trial.seconds_left)} left"
    room = paper.width - len(words) - len(time_left) - 5
    best = trial.best
    if best is not None and best.accuracy is not None:
        told = f", best {best.accuracy:.3f} in epoch {best.epoch}"
        if room - len(told) >= _MIN_WIDTH_OF_BAR:  # else it would take the curve's place, and that of the time
            words, room = words + told, room - len(told)
    curve = sparkline(trial.accuracies, min(room, trial.num_epochs), *scale, ascii_only=paper.ascii_only)
    gap = " " * max(1, paper.width - len(words) - len(curve) - len(time_left) - 2)
    return [first, Text.assemble(words, "  ", (curve, "cyan"), gap, (time_left, _QUIET))]


def _one_row(name: str, trial: RunningTrial, paper: _Paper, scale: tuple[float, float]) -> Text:
    curve_width = 8 if paper.width >= _MIN_WIDTH_OF_ALL else 0
    curve = sparkline(trial.accuracies, min(curve_width, trial.num_epochs), *scale, ascii_only=paper.ascii_only)
    return Text.assemble(
        (f"{name} {trial.number}", _TITLE),
        f" {_epoch(trial)} {_accuracy(trial).removeprefix('accuracy ')} ",
        (curve, "cyan"),
        f" {_point(trial)}",
    )


def _epoch(trial: RunningTrial) -> str:
    return f"{trial.num_done}/{trial.num_epochs}"


def _accuracy(trial: RunningTrial) -> str:
    if trial.accuracies:
        return f"accuracy {trial.accuracies[-1]:.3f}"
    share_of_first = min(1.0, trial.fraction * trial.num_epochs)
    return f"{share_of_first:.0%} of the first" if trial.fraction > 0 else "starting"


def _point(trial: RunningTrial | BestTrial) -> str:
    return _line(str(trial.hyperparameters))


def _whole_items(text: str, paper: _Paper) -> str:
    """A list without those of its last items that do not fit: ``batch 32`` cut short would be another batch size."""
    mark = ", ..." if paper.ascii_only else ", …"
    kept = text
    while len(kept + mark) > paper.width and ", " in kept:
        kept = kept.rpartition(", ")[0]
    return text if len(text) <= paper.width else kept + mark


def _line(text: str) -> str:
    """Any text as one line that moves no cursor."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
