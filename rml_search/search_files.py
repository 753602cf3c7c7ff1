"""The files in which a person finds what a search has brought: ``list_acc.json`` and the checkpoints worth keeping."""

from __future__ import annotations

from dataclasses import dataclass, field

from rml_search.best_model import drop_finished_checkpoints, file_digest, settle_best_model
from rml_search.observer import SearchObserver
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.results import TrialRecord, TrialResult, TrialState, best_record, best_records, write_list_acc
from rml_search.retraining import train_command
from rml_search.search_space import SEED
from rml_search.study import Study


@dataclass
class SearchFiles:
    """Keeps the files in agreement with the study.

    Attributes:
        keep_top: of how many trials, the best ones, the checkpoints are kept.
        has_best_model: whether ``best_model/`` is the best trial's, not one that was the best until then.
    """

    options: SearchOptions
    workspace: Workspace
    study: Study
    observer: SearchObserver
    keep_top: int = 1
    has_best_model: bool = False
    _told_of_checkpoint: str = field(default="", init=False)

    def settle(self, *, verify: bool = False) -> None:
        """Makes them agree with the study; ``verify``: checkpoints are compared with their digests too."""
        with self.study.settling() as records:
            checkpoints = settle_best_model(
                self.workspace, records, self.options, keep_top=self.keep_top, verify=verify
            )
            drop_finished_checkpoints(self.workspace, [record.number for record in records])
            if records:
                write_list_acc(self.workspace, records, checkpoints)
        best = best_record(records)
        self.has_best_model = best is not None and best.number in checkpoints
        if best is not None and best.number not in checkpoints:
            self._tell_of_checkpoint(best)

    def digest_if_kept(self, result: TrialResult) -> str | None:
        """The SHA-256 of the trial's best checkpoint; None where it is not among those to keep."""
        epoch, record = result.best_epoch, result.to_record()
        if epoch is None or record not in best_records([*self.study.records(), record], self.keep_top):
            return None
        checkpoint = self.workspace.trial(result.number).checkpoint(epoch.epoch)
        if result.state is TrialState.PRUNED and not checkpoint.is_file():
            return None  # engines tell of an epoch before they save it, and hopeless trials are not waited for
        return file_digest(checkpoint)

    def _tell_of_checkpoint(self, best: TrialRecord) -> None:
        """Says, once, where the best checkpoint is, since it is not here."""
        text = self.study.where(best) or self._missing(best)
        if text != self._told_of_checkpoint:
            self.observer.note(text)
            self._told_of_checkpoint = text

    def _missing(self, best: TrialRecord) -> str:
        config = self.workspace.trial(best.number).config.relative_to(self.workspace.root)
        again = train_command(config, best.point.get(SEED, self.options.seed))
        return (
            f"The checkpoint of the best trial, {best.number}, is missing from {shown(self.workspace.best_model)}, "
            f"or was changed: retrain it with {again} and run this command again (the same device and number of "
            "threads give the same checkpoint), or start a new search with --fresh"
        )
