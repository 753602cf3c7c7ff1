"""The best trials trained again with other seeds: one reading flatters, the mean of several does not."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from rml_search.best_model import file_digest
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SearchOptions
from rml_search.paths import Workspace
from rml_search.results import TrialRecord, best_records
from rml_search.search_space import SEED, Dimension, IntRange, Value
from rml_search.trial_config import inference_configuration, network_index
from rml_search.whole_files import replacing, write_atomically


@dataclass(frozen=True)
class Confirmed:
    """A trial that was trained again.

    Attributes:
        trial: the trial of the search.
        runs: those that worked, one for each seed.
        num_failed: those that did not.
    """

    trial: TrialRecord
    runs: tuple[TrialRecord, ...]
    num_failed: int

    @property
    def mean(self) -> float:
        """Of the best epochs' accuracies (0 to 1); 0 below any that has worked where none has."""
        return statistics.fmean(run.max_acc or 0.0 for run in self.runs) if self.runs else -1.0

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a run; None for fewer than two."""
        return statistics.stdev(run.max_acc or 0.0 for run in self.runs) if len(self.runs) > 1 else None

    @property
    def best_run(self) -> TrialRecord:
        """The run whose checkpoint is kept."""
        return best_records(self.runs, 1)[0]


@dataclass(frozen=True)
class KeptWinner:
    """Whose model the confirmed one is, as a file beside it tells: another confirmation may have the same checkpoint.

    Attributes:
        trial: the number of the trial of the search.
        accuracies: of the best epochs (0 to 1) of its runs, one or more.
        study: the name of the study of all these runs.
        checkpoint_sha256: of the model.
    """

    trial: int
    accuracies: tuple[float, ...]
    study: str
    checkpoint_sha256: str

    @property
    def mean(self) -> float:
        """Of the accuracies."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a run; None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def confirmation_workspace(workspace: Workspace, trials: Sequence[TrialRecord], num_seeds: int) -> Workspace:
    """Where these trials are trained again: a folder of its own, so that other trials begin anew."""
    numbers = "_".join(str(trial.number) for trial in trials)
    return workspace.part(f"confirmation/trials_{numbers}_seeds_{num_seeds}")


def confirmation_options(options: SearchOptions, num_runs: int, num_seeds: int) -> SearchOptions:
    """A search whose points have a seed besides."""
    first = 1 + (options.seed or 0)
    seed = Dimension(SEED, SEED, IntRange(first, first + num_seeds - 1))
    return replace(options, num_trials=num_runs, dimensions=(*options.dimensions, seed))


def confirmation_points(options: SearchOptions, trials: Iterable[TrialRecord]) -> list[dict[str, Value]]:
    """Each trial's point with each seed of ``options``; one seed after the other, so that a broken-off one is fair."""
    return [{**trial.point, SEED: seed} for seed in options.space[SEED].domain.grid() for trial in trials]


def rank(trials: Iterable[TrialRecord], runs: Iterable[TrialRecord]) -> list[Confirmed]:
    """The trials by the mean of their runs, the best first."""
    finished = [run for run in runs if not run.tried_again]
    ranked = []
    for trial in trials:
        own = [run for run in finished if {**trial.point, SEED: run.point[SEED]} == run.point]
        worked = tuple(run for run in own if run.max_acc is not None)
        ranked.append(Confirmed(trial, worked, len(own) - len(worked)))
    return sorted(ranked, key=lambda confirmed: (-confirmed.mean, confirmed.trial.number))


def read_kept_winner(workspace: Workspace) -> KeptWinner | None:
    """Whose model the confirmed one in the folder is; None where there is none."""
    with suppress(OSError, ValueError):  # pydantic's errors among them
        winner = TypeAdapter(KeptWinner).validate_json(workspace.kept_winner.read_bytes())
        digest = workspace.confirmed_model.digest.read_text(encoding="utf-8").partition(" ")[0]
        return winner if digest == winner.checkpoint_sha256 else None
    return None


def keep_winner(winner: Confirmed, options: SearchOptions, part: Workspace, workspace: Workspace) -> None:
    """Puts the best checkpoint of the winner's runs beside the best model, with a configuration that runs it.

    It may be called again: what is there already is written anew. The other runs' checkpoints are deleted.
    """
    run, model = winner.best_run, workspace.confirmed_model
    point = Hyperparameters.from_point(run.point)
    kept = [part.best_checkpoint, part.top_model(run.number).checkpoint, model.checkpoint]
    source = next((path for path in kept if path.is_file() and file_digest(path) == run.checkpoint_sha256), None)
    if source is None:
        return
    model.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    layers = workspace.trial_layers(network_index(options, point)).read_text(encoding="utf-8")
    write_atomically(model.layers, layers)
    write_atomically(model.config, inference_configuration(options, point, workspace, model).to_json())
    if source != model.checkpoint:
        with replacing(model.checkpoint) as temporary:
            shutil.copyfile(source, temporary)
    write_atomically(model.digest, f"{run.checkpoint_sha256}  {model.checkpoint.name}\n")
    accuracies = tuple(one.max_acc or 0.0 for one in winner.runs)
    told = KeptWinner(winner.trial.number, accuracies, part.name, run.checkpoint_sha256 or "")
    write_atomically(workspace.kept_winner, json.dumps(asdict(told), indent=2) + "\n")
    shutil.rmtree(part.best_model, ignore_errors=True)
