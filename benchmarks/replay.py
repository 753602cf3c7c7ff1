"""Which sampler and pruner find good hyperparameters for how many epochs, on learning curves that were really recorded.

    python benchmarks/replay.py [--trials 20,50] [--workers 1,4] [--searches 60]

``learning_curves.json`` holds what ``record_curves.py`` has trained: each optimizer, loss and one of five learning
rates with several seeds, on the 702 and 78 BUSI images of ``prepare`` at 32 by 32 pixels, the small U-Net, batch 16,
exponential decay 0.95, 20 epochs, float32, one thread. A search here is the driver's own study (its sampler, its
pruner, no point twice), in memory, whose trials read those curves instead of training: a trial takes one seed's curves,
drawn for it, and between two recorded learning rates it reads the mean of their curves, weighted by the distance on the
logarithmic scale, since reading the nearer one would make five points of the range. Several workers take turns, an
epoch each.

``learning_curves_augmented.json`` (``--curves``) holds trainings with and without augmentation, which its searches
choose too: 101 of those training images, three learning rates, decay 0.97, 60 epochs, two seeds.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_optuna import OptunaStudy
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import PrunerName, SamplerName, SearchOptions
from rml_search.results import TrialResult, TrialState
from rml_search.search_space import Choices, Dimension
from rml_search.study import Suggestion
from rml_study.samplers import build_pruner
from rmldnn_contract.training_log import EpochRecord

Curve = list[float]


@dataclass(frozen=True)
class Way:
    """How a search goes about."""

    sampler: SamplerName
    pruner: PrunerName


_AUGMENTED = Dimension("augmented", "data.transforms", Choices((False, True)))

TUTORIAL = Way(SamplerName.TPE, PrunerName.NONE)


@dataclass(frozen=True)
class Curves:
    """The accuracies of every epoch, by optimizer, loss and augmentation, then by learning rate, then by seed."""

    by_choice: dict[tuple[str, str, bool], dict[float, dict[int, Curve]]]

    @classmethod
    def read(cls, path: Path) -> Curves:
        """The file that ``record_curves.py`` writes; seeds that lack a curve of the grid are left out."""
        by_choice: dict[tuple[str, str, bool], dict[float, dict[int, Curve]]] = {}
        recorded = json.loads(path.read_text(encoding="utf-8"))
        num_curves = [curve["seed"] for curve in recorded]
        whole = {seed for seed in num_curves if num_curves.count(seed) == max(map(num_curves.count, num_curves))}
        for curve in recorded:
            if curve["seed"] in whole:
                by_rate = by_choice.setdefault((curve["optimizer"], curve["loss"], "augmented" in curve), {})
                by_rate.setdefault(curve["learning_rate"], {})[curve["seed"]] = curve["accuracies"]
        return cls(by_choice)

    def options(self, num_trials: int, seed: int) -> SearchOptions:
        """A search over what was recorded."""
        optimizers, losses, augmented = (tuple(sorted(set(values))) for values in zip(*self.by_choice, strict=True))
        rates = sorted(self._some)
        return SearchOptions(
            num_trials,
            self.num_epochs,
            optimizers,
            losses,
            (Path("-"),),
            Path("-"),
            (rates[0], rates[-1]),
            seed=seed,
            dimensions=(_AUGMENTED,) if len(augmented) > 1 else (),
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
        by_rate = self.by_choice[point.optimizer, point.loss, point.point.get(_AUGMENTED.name, False)]
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


class _Memory(optuna.storages.InMemoryStorage):
    """A storage in memory, with what the driver's own has besides: nothing waits to be written."""

    def save(self) -> None: ...

    def save_what_is_due(self) -> None: ...


def replay(curves: Curves, way: Way, *, num_trials: int, num_workers: int = 1, seed: int = 0) -> Found:
    """One search on recorded curves."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _Memory()
    pruner = build_pruner(way.pruner, curves.num_epochs)
    study = optuna.create_study(storage=storage, study_name="replay", direction="maximize", pruner=pruner)
    options = curves.options(num_trials, seed)
    return Replay(curves, OptunaStudy(study, storage, options, way.sampler), seed).run(num_trials, num_workers)


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, default=Path(__file__).with_name("learning_curves.json"))
    parser.add_argument("--samplers", default="tpe,random", help="some of tpe, random, cmaes, gp, qmc")
    parser.add_argument("--pruners", default=",".join(pruner.value for pruner in PrunerName))
    parser.add_argument("--trials", default="50")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--searches", type=int, default=60)
    options = parser.parse_args()
    curves = Curves.read(options.curves)
    print(f"{len(curves.seeds)} seeds, {curves.num_epochs} epochs, {options.searches} searches of each kind")
    for num_trials, num_workers in itertools.product(_numbers(options.trials), _numbers(options.workers)):
        ways = [
            Way(SamplerName(sampler), PrunerName(pruner))
            for sampler in options.samplers.split(",")
            for pruner in options.pruners.split(",")
        ]
        found = {
            way: [
                replay(curves, way, num_trials=num_trials, num_workers=num_workers, seed=seed)
                for seed in range(options.searches)
            ]
            for way in dict.fromkeys([TUTORIAL, *ways])
        }
        print(f"\n{num_trials} trials, {num_workers} at a time")
        headers = ["sampler", "pruner", "epochs", "Dice again", "lost", "quartiles of what was lost"]
        print(tabulate([_row(way, found) for way in found], headers=headers, disable_numparse=True))


def _row(way: Way, found: Mapping[Way, Sequence[Found]]) -> list[str]:
    usual, own = found[TUTORIAL], found[way]
    lost = [before.dice - after.dice for before, after in zip(usual, own, strict=True)]
    lower, upper = statistics.quantiles(lost, n=4)[::2]
    share = statistics.median(search.epochs for search in own) / statistics.median(search.epochs for search in usual)
    dice = statistics.median(search.dice for search in own)
    quartiles = f"{lower:+.4f} to {upper:+.4f}"
    return [
        way.sampler.value,
        way.pruner.value,
        f"{share:.0%}",
        f"{dice:.4f}",
        f"{statistics.median(lost):+.4f}",
        quartiles,
    ]


def _numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


if __name__ == "__main__":
    main()
