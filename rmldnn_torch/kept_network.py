"""The network that a worker keeps on its device from one run to the next, the steps recorded of it, and its weights.

A recorded step reads the weights where they lay when it was recorded. So the next run of a network that is built alike
puts its own initial weights there, and finds the steps ready. Only a worker that carries out its runs itself keeps one,
and only of runs that record; it goes as soon as a run needs something else. The weights are those of the file that the
last run began with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from rmldnn_torch.cuda_graphs import Recorder, Recordings, Step
from rmldnn_torch.data import Batch
from rmldnn_torch.keras_graph import NetworkGraph
from rmldnn_torch.network import Network
from rmldnn_torch.shared_samples import key_of
from rmldnn_torch.weights import Checkpoint, read_checkpoint

#: Of a search over three losses, with a last batch that is smaller, and with augmentation or without.
_MAX_STEPS = 12


@dataclass
class KeptNetwork:
    """What is kept.

    Attributes:
        is_of_the_worker: this process is a worker; else nothing is kept.
    """

    is_of_the_worker: bool = False
    _network: Network | None = None
    _device: torch.device | None = None
    _recorder: Recorder | None = None
    _steps: dict[object, dict[object, Step]] = field(default_factory=dict)
    _read: tuple[str, NetworkGraph, Checkpoint] | None = None

    @property
    def num_steps(self) -> int:
        """How many steps are kept: each has its own gradients, all together the values of one step."""
        return sum(map(len, self._steps.values()))

    def read_once(self, path: Path, network: Network) -> Checkpoint:
        """What the file holds for such a network, from memory if the worker has read it and it is the same still.

        Raises CheckpointError.
        """
        if not self.is_of_the_worker:
            return read_checkpoint(path, network)
        key = key_of([path], "")
        match self._read:
            case (known, graph, checkpoint) if known == key and graph == network.graph:
                return checkpoint
        self._read = None  # its memory first
        checkpoint = read_checkpoint(path, network)
        self._read = key, network.graph, checkpoint
        return checkpoint

    def take_over(self, network: Network, device: torch.device) -> Network:
        """The kept network with the weights of this one, if it is built alike and on that device.

        If it is not, it goes: its memory is free again, and ``network`` is given back as it is.
        """
        kept = self._network
        if kept is not None and self._device == device and kept.graph == network.graph:
            kept.zero_grad()
            kept.load_state_dict(network.state_dict())
            return kept
        self.forget()
        return network

    def recordings(self, network: Network, device: torch.device, recorder: Recorder, about: object) -> Recordings:
        """The steps of a network, and what records further ones; from now on both are kept.

        Args:
            network: on the device, as :meth:`take_over` gave it or placed there since.
            recorder: what records them where nothing is kept yet.
            about: all that a step depends on beside the network and the batch's shape, hashable.
        """
        if not self.is_of_the_worker:
            return Recordings(recorder)
        if network is not self._network or self._recorder is None:
            self.forget()
            self._network, self._device, self._recorder = network, device, recorder
        if self.num_steps > _MAX_STEPS:
            self._drop_steps()
        if not self.num_steps:
            self._recorder.begin_anew()
        return Recordings(self._recorder, self._steps.setdefault(about, {}), self._make_room)

    def _make_room(self, batch: Batch) -> None:
        """Steps of smaller batches go: with their memory one of this size might find too little."""
        sizes = [step.batch.inputs.numel() for steps in self._steps.values() for step in steps.values()]
        if sizes and max(sizes) < batch.inputs.numel():
            self._drop_steps()

    def _drop_steps(self) -> None:
        for steps in self._steps.values():  # which a run may hold too
            steps.clear()
        if self._recorder is not None:
            self._recorder.begin_anew()

    def forget(self) -> None:
        """Gives the memory back."""
        self._network = self._device = self._recorder = None
        self._steps = {}


#: Of this process; a worker gives it meaning.
kept_network = KeptNetwork()
