"""A search whose driver and whose engines are killed at random moments, and what is lost by it."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from tabulate import tabulate

from rml_optuna import STUDY_NAME
from rml_search.best_model import file_digest
from rml_search.paths import Workspace
from rml_search.results import TrialRecord, best_record, read_list_acc
from rml_study.storage import storage_url

NUM_KILLS = 25
NUM_TRIALS = 6

#: The engines that are at work, processes or containers, each as what kills it.
Engines = Callable[[], list[Callable[[], object]]]


@dataclass
class FaultySearch:
    """Kills drivers of one search, and in between engines.

    Attributes:
        start: starts a driver that makes the total of finished trials so many.
        engines: those that are at work now.
        longest_seconds: how long a driver lives at most.
    """

    workspace: Workspace
    start: Callable[[int], subprocess.Popen[str]]
    engines: Engines
    longest_seconds: float
    num_trials: int = NUM_TRIALS
    num_kills: int = 0
    num_failures: int = 0
    ended: dict[int, TrialRecord] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    _random: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self) -> None:
        """Kills as many drivers as asked for, each while it was at work, then lets one complete the search."""
        while self.num_kills < NUM_KILLS:
            driver = self.start(self.num_trials)
            seconds = self._random.uniform(0.2, self.longest_seconds)
            first = self._random.uniform(0.0, seconds)
            time.sleep(first)
            self._kill_an_engine()
            time.sleep(seconds - first)
            if driver.poll() is None:
                self.num_kills += 1
                driver.send_signal(signal.SIGKILL)
            else:  # it had nothing left to do: that was no kill
                assert driver.returncode == 0
                self.num_trials += 2
            driver.communicate()
            self._compare()
        driver = self.start(self.num_trials)
        output, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, output
        self._compare()

    def _kill_an_engine(self) -> None:
        engines = self.engines()
        if engines:
            self._random.choice(engines)()
            self.num_failures += 1

    def _compare(self) -> None:
        """A trial that had ended stays as it was."""
        if self.ended or self.workspace.list_acc.exists():
            now = {record.number: record for record in read_list_acc(self.workspace)}
            self.lost |= {
                number for number, record in self.ended.items() if _result(now.get(number)) != _result(record)
            }
            self.ended = now

    def check(self) -> None:
        """List, study and best model agree, and there are as many trials as asked for."""
        records = list(self.ended.values())
        counted = [record for record in records if not record.tried_again]
        assert len(counted) == self.num_trials
        assert all(record.state.value == "complete" for record in counted)
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(self.workspace))
        told = {trial.number: trial for trial in study.trials}
        for record in counted:
            assert told[record.number].value == record.max_acc
        best = best_record(records)
        assert best is not None
        assert file_digest(self.workspace.best_checkpoint) == best.checkpoint_sha256
        assert str(best.epoch_max_acc) in self.workspace.trial(best.number).test_file.read_text().split()
        assert list(self.workspace.trials.glob("*/checkpoints/model_checkpoint_*")) == []
        assert list(self.workspace.root.rglob("*.tmp")) == []

    def engines_left(self) -> int:
        """How many engines outlive the last driver by more than they need to notice."""
        deadline = time.monotonic() + 10
        while self.engines() and time.monotonic() < deadline:
            time.sleep(0.2)
        return len(self.engines())

    def table(self, what: str) -> str:
        """The row of README's table; ``pytest -s`` shows it."""
        row = [what, self.num_kills, self.num_failures, len(self.lost), self.engines_left(), len(self.ended)]
        headers = ["", "drivers killed", "engines killed", "trials lost", "engines left", "trials begun"]
        return tabulate([row], headers=headers)


def _result(record: TrialRecord | None) -> object:
    return record and (record.state, record.max_acc, record.epoch_max_acc, record.hyperparameters, record.seconds)
