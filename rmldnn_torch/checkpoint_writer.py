"""Checkpoints written while the training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from rmldnn_torch.files import remove_unfinished_files
from rmldnn_torch.network import Network
from rmldnn_torch.termination import Terminated
from rmldnn_torch.weights import copy_weights, write_checkpoint

_SECONDS_FOR_THE_LAST = 0.5


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, one at a time, in the order of their epochs.

    An epoch on a fast device takes less time than its checkpoint takes to the disk. A copy of the weights is made at
    once, on their device, so that the next step may change them. Leaving the context waits for the last file; on a
    signal only for a moment, and then it is whole or not there.

    Attributes:
        have_left_one: of this process: a thread may still write a file of a run that has ended.
    """

    have_left_one = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Terminated):  # two seconds are all that there is
            unfinished = wait([] if self._pending is None else [self._pending], timeout=_SECONDS_FOR_THE_LAST).not_done
            CheckpointWriter.have_left_one |= bool(unfinished)
            remove_unfinished_files()
            return
        try:
            self._finish()
        except Exception:
            if error is None:  # else what ended the training is what a person needs to know
                raise
        finally:
            self._thread.shutdown()

    def save(self, path: Path, network: Network, epoch: int) -> None:
        """Saves the weights that the network has now; waits where the checkpoint before is not yet written.

        Raises ``OutputError`` where that one could not be written.
        """
        self._finish()
        weights = copy_weights(network)
        self._pending = self._thread.submit(write_checkpoint, path, weights, network.graph.name, epoch)

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
