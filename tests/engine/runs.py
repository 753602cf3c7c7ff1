"""Runs of the engine in the test's own process, and what they print."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.training_log import EvalBatch, TrainBatch, parse_line, without_stamp
from rmldnn_torch.command_line import main

Document = dict[str, Any]


def layer(kind: str, name: str, **config: object) -> Document:
    """A layer of an inline network, which the layer before it feeds."""
    return {"class_name": kind, "config": {"name": name, **config}}


class Runs:
    """Runs documents in the working directory, and keeps what the last one printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.lines: list[str] = []

    def __call__(self, document: Document, status: ExitStatus = ExitStatus.OK, **changes: object) -> None:
        """Runs ``document`` with other values for the keys of its ``neural_network``."""
        network = copy.deepcopy(document["neural_network"])
        network.update(changes)
        Path("config.json").write_text(json.dumps({"neural_network": network}), encoding="utf-8")
        ended = main(["--config=config.json"])
        self.lines = [without_stamp(line) for line in self._capsys.readouterr().out.splitlines()]
        assert ended == status, self.lines[-1]

    @property
    def losses(self) -> list[float]:
        """Of the training batches that have a line."""
        return [line.loss for line in map(parse_line, self.lines) if isinstance(line, TrainBatch)]

    @property
    def evaluation(self) -> EvalBatch:
        """The last one."""
        return [line for line in map(parse_line, self.lines) if isinstance(line, EvalBatch)][-1]

    def trains_and_resumes(self, document: Document) -> EvalBatch | None:
        """Trains, loads the last checkpoint and goes on; gives the last evaluation of the first training.

        The checkpoint must hold all that was learnt: a training that begins with it begins with less loss than one
        that begins anew, and evaluated alone it comes to what the training came to.
        """
        network = document["neural_network"]
        checkpoint = f"{network['checkpoints']['save']}model_checkpoint_{network['num_epochs']}.pt"
        self(document)
        first, trained = self.losses[0], None
        if "test_input_path" in network["data"]:
            trained = self.evaluation
            data = {key: network["data"][key] for key in network["data"] if key not in {"input_path", "target_path"}}
            self(document, data=data, checkpoints={"load": checkpoint}, num_epochs=1)
            assert (self.evaluation.loss, self.evaluation.accuracy) == (trained.loss, trained.accuracy)
        self(document, checkpoints={"load": checkpoint, "save": "resumed/"}, num_epochs=1)
        assert f"Loading model checkpoint from file: {checkpoint}" in self.lines
        assert self.losses[0] < first
        assert Path("resumed/model_checkpoint_1.pt").exists()
        return trained
