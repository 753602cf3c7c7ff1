"""Which sampler and pruner find good hyperparameters for how many epochs, on learning curves that were really recorded.

    python benchmarks/replay.py [--trials 20,50,100] [--workers 1,4] [--searches 100]

``learning_curves.json`` holds what ``record_curves.py`` has trained: each optimizer, loss and one of five learning rates
with several seeds. A search here is the driver's own study (its sampler, its pruner, no point twice), in memory,
whose trials read those curves instead of training: a trial takes one seed's curves, drawn for it, and between two
recorded learning rates it reads the mean of their curves, weighted by the distance on the logarithmic scale, since reading
the nearer one would make five points of the range. Several workers take turns, an epoch each.

Printed, as medians over the searches: the epochs spent, as a part of those of the tutorial's way (TPE, no pruning), and
the Dice of the returned hyperparameters measured again, as the mean of the best epochs that the other seeds' curves
have there: the best of many noisy readings flatters whoever reads most. "Lost" is the median over the searches of what
the same search (same seed, trials and workers) of the tutorial's way found more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_optuna import OptunaStudy
from rml_samplers import build_pruner
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import PrunerName, SamplerName, SearchOptions, StudyChoice
from rml_search.results import TrialResult, TrialState
from rml_search.study import Suggestion
from rmldnn_contract.training_log import EpochRecord

Curve = list[float]


@dataclass(frozen=True)
class Curves:
    """The accuracies of every epoch, by optimizer and loss, then by learning rate, then by seed."""

    by_choice: dict[tuple[str, str], dict[float, dict[int, Curve]]]

    @classmethod
    def read(cls, path: Path) -> Curves:
        """The file that ``record_curves.py`` writes; seeds that lack a curve of the grid are left out."""
        by_choice: dict[tuple[str, str], dict[float, dict[int, Curve]]] = {}
        recorded = json.loads(path.read_text(encoding="utf-8"))
        num_curves = [curve["seed"] for curve in recorded]
        whole = {seed for seed in num_curves if num_curves.count(seed) == max(map(num_curves.count, num_curves))}
        for curve in recorded:
            if curve["seed"] in whole:
                by_rate = by_choice.setdefault((curve["optimizer"], curve["loss"]), {})
                by_rate.setdefault(curve["learning_rate"], {})[curve["seed"]] = curve["accuracies"]
        return cls(by_choice)

    def options(self, num_trials: int, seed: int) -> SearchOptions:
        """A search over what was recorded."""
        optimizers, losses = (tuple(sorted(set(names))) for names in zip(*self.by_choice, strict=True))
        rates = sorted(self._some)
        return SearchOptions(
            num_trials, self.num_epochs, optimizers, losses, Path("-"), Path("-"), (rates[0], rates[-1]), seed=seed
        )

    @property
    def _some(self) -> dict[float, dict[int, Curve]]:
        return next(iter(self.by_choice.values()))

    @property
    def seeds(self) -> list[int]:
        return sorted(next(iter(self._some.values())))

    @property
    def num_epochs(self) -> int:
        return len(next(iter(next(iter(self._some.values())).values())))

    def of(self, point: Hyperparameters, seed: int) -> Curve:
        """The curve of one seed at that point, between two recorded learning rates by interpolation."""
        by_rate = self.by_choice[point.optimizer, point.loss]
        rates = sorted(by_rate)
        if len(rates) == 1:
            return by_rate[rates[0]][seed]
        low, high = next(pair for pair in itertools.pairwise(rates) if point.learning_rate <= pair[1] * (1 + 1e-9))
        share = math.log(point.learning_rate / low) / math.log(high / low)
        pairs = zip(by_rate[low][seed], by_rate[high][seed], strict=True)
        return [below + share * (above - below) for below, above in pairs]

    def again(self, point: Hyperparameters, without: int) -> float:
        """The mean over the other seeds of the best accuracy there."""
        return statistics.fmean(max(self.of(point, seed)) for seed in self.seeds if seed != without)


@dataclass(frozen=True)
class Found:
    """What a search has spent, in epochs, and the Dice of what it returns, measured again."""

    epochs: int
    dice: float


@dataclass
class _Trial:
    suggestion: Suggestion
    seed: int
    curve: Curve
    epochs: list[EpochRecord] = field(default_factory=list)

    def result(self, state: TrialState) -> TrialResult:
        return TrialResult(self.suggestion.number, self.suggestion.hyperparameters, state, tuple(self.epochs), 0.0)


@dataclass
class Replay:
    """One search on recorded curves.

    Attributes:
        best: the trial that has the best epoch of those that ended, and that epoch's accuracy.
    """

    curves: Curves
    study: OptunaStudy
    seed: int
    best: tuple[float, _Trial] | None = None
    num_spent: int = 0

    def run(self, num_trials: int, num_workers: int) -> Found:
        """Runs so many trials, so many at a time."""
        running: list[_Trial] = []
        num_begun = 0
        while running or num_begun < num_trials:
            while num_begun < num_trials and len(running) < num_workers:
                suggestion = self.study.ask()
                if suggestion is None:
                    num_trials = num_begun
                    break
                running.append(self._begin(suggestion))
                num_begun += 1
            running = [trial for trial in running if not self._step(trial)]
        if self.best is None:
            raise ValueError("no trial has run")
        _, trial = self.best
        return Found(self.num_spent, self.curves.again(trial.suggestion.hyperparameters, without=trial.seed))

    def _begin(self, suggestion: Suggestion) -> _Trial:
        seed = random.Random(f"{self.seed} {suggestion.number}").choice(self.curves.seeds)
        return _Trial(suggestion, seed, self.curves.of(suggestion.hyperparameters, seed))

    def _step(self, trial: _Trial) -> bool:
        """One epoch more; whether the trial has ended with it."""
        accuracy, epoch = trial.curve[len(trial.epochs)], len(trial.epochs) + 1
        trial.epochs.append(EpochRecord(epoch, len(trial.curve), accuracy))
        self.num_spent += 1
        is_hopeless = self.study.report(trial.suggestion.number, trial.epochs[-1])
        highest = max(record.accuracy or 0.0 for record in trial.epochs)
        is_best = self.best is None or highest > self.best[0]
        # The driver waits for the checkpoint of an epoch that is the best of all.
        is_pruned = is_hopeless and not (is_best and accuracy == highest)
        if not is_pruned and epoch < len(trial.curve):
            return False
        self.study.finish(trial.result(TrialState.PRUNED if is_pruned else TrialState.COMPLETE), None)
        if is_best:
            self.best = (highest, trial)
        return True


def replay(
    curves: Curves,
    sampler: SamplerName,
    pruner: optuna.pruners.BasePruner,
    *,
    num_trials: int,
    num_workers: int = 1,
    seed: int = 0,
) -> Found:
    """One search on recorded curves."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="replay", direction="maximize", pruner=pruner)
    options = curves.options(num_trials, seed)
    return Replay(curves, OptunaStudy(study, storage, options, sampler), seed).run(num_trials, num_workers)
