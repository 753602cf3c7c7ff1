"""How a search goes about what its options ask for."""

from __future__ import annotations

from dataclasses import dataclass, field

from rml_search.display_name import DisplayName
from rml_search.errors import OptionError
from rml_search.executor.options import SlurmOptions
from rml_search.limits import Limits
from rml_search.options import ConfirmOptions, JobChoice, SharedChoice, StudyChoice
from rml_search.paths import SHARED_JOURNAL
from rml_search.tracking_choice import TrackingChoice


@dataclass(frozen=True)
class SearchPlan:
    """How a search goes about: what draws its trials, how many run at a time, when they end, what it leaves.

    ``keep_top``: of so many trials, the best ones, the checkpoints are kept. ``confirm``: the best ones are trained
    again at the end. ``shared``: the study is one that several drivers work on. ``slurm``: these are jobs of a cluster.
    ``display``: how it is shown.
    """

    study: StudyChoice = field(default_factory=StudyChoice)
    jobs: JobChoice = field(default_factory=JobChoice)
    limits: Limits = field(default_factory=Limits)
    keep_top: int = 1
    confirm: ConfirmOptions | None = None
    writes_report: bool = True
    shared: SharedChoice | None = None
    slurm: SlurmOptions | None = None
    tracking: TrackingChoice = field(default_factory=TrackingChoice)
    display: DisplayName = DisplayName.PLAIN

    def __post_init__(self) -> None:
        if self.keep_top < 1:
            raise OptionError(f"--keep-top must be at least 1, not {self.keep_top}")
        if self.shared is None:
            return
        if self.study.is_fresh and not self.owns_storage:
            raise OptionError("--fresh cannot replace a shared study: choose another --study-name")
        if self.confirm is not None:
            option = "--storage" if self.slurm is None else "--executor slurm"
            raise OptionError(f"--confirm does not work with {option}: leave it out")

    @property
    def owns_storage(self) -> bool:
        """Whether the study that the jobs of a cluster share lies among the results of this search."""
        return self.slurm is not None and self.shared is not None and self.shared.storage == SHARED_JOURNAL
