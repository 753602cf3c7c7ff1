"""Checkpoints that a thread writes hold the weights of their own epoch, and their errors are not lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rmldnn_contract.exit_status import OutputError
from rmldnn_torch import checkpoint_writer
from rmldnn_torch.checkpoint_writer import CheckpointWriter
from rmldnn_torch.files import replacing
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network
from rmldnn_torch.termination import Terminated
from rmldnn_torch.weights import write_checkpoint

from .conftest import layers_of


@pytest.fixture
def network() -> Network:
    return Network(read_network(layers_of()))


def test_a_checkpoint_has_the_weights_of_its_epoch_though_the_network_goes_on(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = threading.Event()

    def write_late(path: Path, weights: Mapping[str, Tensor], name: str, epoch: int) -> None:
        assert changed.wait(timeout=20)
        write_checkpoint(path, weights, name, epoch)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write_late)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with CheckpointWriter() as writer:
        writer.save(tmp_path / "model.pt", network, epoch=3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        changed.set()
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved["epoch"] == 3
    assert all(torch.equal(saved["parameters"][name], value) for name, value in before.items())


def save_all(network: Network, *paths: Path, error: BaseException | None = None) -> None:
    with CheckpointWriter() as writer:
        for epoch, path in enumerate(paths, start=1):
            writer.save(path, network, epoch)
        if error is not None:
            raise error


def test_a_file_that_cannot_be_written_is_told_at_the_next_or_at_the_end(network: Network, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad, good = tmp_path / "file" / "model.pt", tmp_path / "good.pt"
    with pytest.raises(OutputError, match="cannot write"):
        save_all(network, bad, good)
    assert not good.exists()
    with pytest.raises(OutputError, match="cannot write"):
        save_all(network, good, bad)
    assert good.exists()


def test_what_ended_the_training_is_told_before_what_its_checkpoint_met(network: Network, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError):
        save_all(network, tmp_path / "file" / "model.pt", error=ZeroDivisionError())


def test_on_a_signal_a_slow_checkpoint_is_not_waited_for(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def write_slowly(path: Path, *_: object) -> None:
        with replacing(path) as temporary:
            temporary.touch()
            released.wait(timeout=20)

    monkeypatch.setattr(CheckpointWriter, "have_left_one", False)
    with pytest.raises(Terminated):
        save_all(network, tmp_path / "model.pt", error=Terminated(signal.SIGTERM))
    assert not CheckpointWriter.have_left_one
    (tmp_path / "model.pt").unlink()
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write_slowly)
    started = time.monotonic()
    with pytest.raises(Terminated):
        save_all(network, tmp_path / "model.pt", error=Terminated(signal.SIGTERM))
    assert time.monotonic() - started < 1.0
    assert list(tmp_path.iterdir()) == []
    assert CheckpointWriter.have_left_one
    released.set()
