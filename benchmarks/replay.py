"""Which sampler and pruner find good hyperparameters for how many epochs, on learning curves that were really recorded.

    python benchmarks/replay.py [--trials 50] [--seeds 100]

Each search draws trials from one seed's curves (between two learning rates of the grid it reads the nearer one's) and
returns the hyperparameters of its best epoch. Printed, as medians over the searches: the epochs spent, as a part of
those of the tutorial's way (TPE, no pruning), and the Dice of the returned hyperparameters measured again, as the mean
of the best epochs of the other seeds' curves: the best of many noisy readings flatters whoever reads most.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from pathlib import Path

import optuna
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_optuna import suggest
from rml_samplers import build_pruner, build_sampler
from rml_search.options import PrunerName, SamplerName, SearchOptions

Point = tuple[str, str, float]
Curves = dict[Point, dict[int, list[float]]]
TUTORIAL = (SamplerName.TPE, PrunerName.NONE)


def main() -> None:
    """Replays and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, default=Path(__file__).with_name("learning_curves.json"))
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=60)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = _read(options.curves)
    ways = [(sampler, pruner) for sampler in (SamplerName.TPE, SamplerName.RANDOM) for pruner in PrunerName]
    results = {way: [_search(curves, *way, options.trials, seed) for seed in range(options.seeds)] for way in ways}
    usual_epochs = statistics.median(epochs for epochs, _ in results[TUTORIAL])
    usual_dice = statistics.median(dice for _, dice in results[TUTORIAL])
    rows = []
    for (sampler, pruner), found in results.items():
        epochs = statistics.median(epochs for epochs, _ in found)
        dice = [dice for _, dice in found]
        lower, upper = statistics.quantiles(dice, n=4)[::2]
        rows.append(
            [
                sampler.value,
                pruner.value,
                f"{epochs / usual_epochs:.0%}",
                f"{statistics.median(dice):.4f}",
                f"{statistics.median(dice) - usual_dice:+.4f}",
                f"{lower:.4f}-{upper:.4f}",
            ]
        )
    print(tabulate(rows, headers=["sampler", "pruner", "epochs", "Dice again", "against TPE, none", "quartiles"]))


def _read(path: Path) -> Curves:
    curves: Curves = {}
    for curve in json.loads(path.read_text(encoding="utf-8")):
        point = (curve["optimizer"], curve["loss"], curve["learning_rate"])
        curves.setdefault(point, {})[curve["seed"]] = curve["accuracies"]
    return curves


def _search(curves: Curves, sampler: SamplerName, pruner: PrunerName, num_trials: int, seed: int) -> tuple[int, float]:
    """The epochs that a search spends, and the Dice of what it returns when that is measured again."""
    optimizers, losses, rates = (sorted(set(values)) for values in zip(*curves, strict=True))
    num_epochs = len(next(iter(next(iter(curves.values())).values())))
    options = SearchOptions(
        num_trials, num_epochs, tuple(optimizers), tuple(losses), Path("-"), Path("-"), (rates[0], rates[-1]), seed=seed
    )
    study = optuna.create_study(
        direction="maximize", sampler=build_sampler(sampler, seed, options), pruner=build_pruner(pruner, num_epochs)
    )
    draw = random.Random(seed)
    seeds = sorted(next(iter(curves.values())))
    spent, best, best_point, best_seed = 0, -1.0, None, seeds[0]
    for _ in range(num_trials):
        trial = study.ask()
        drawn = suggest(trial, options)
        rate = min(rates, key=lambda known: abs(math.log(known / drawn.learning_rate)))
        point, curve_seed = (drawn.optimizer, drawn.loss, rate), draw.choice(seeds)
        state, highest = optuna.trial.TrialState.COMPLETE, -1.0
        for epoch, accuracy in enumerate(curves[point][curve_seed], start=1):
            spent += 1
            highest = max(highest, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune() and epoch < num_epochs:
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, highest if state is optuna.trial.TrialState.COMPLETE else None, state=state)
        if highest > best:
            best, best_point, best_seed = highest, point, curve_seed
    assert best_point is not None
    return spent, statistics.mean(max(curve) for other, curve in curves[best_point].items() if other != best_seed)


if __name__ == "__main__":
    main()
