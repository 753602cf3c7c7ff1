"""One training with the built-in engine, for the benchmarks that compare trainings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rmldnn_contract.training_log import read_epochs, without_stamp


def image_data(folder: Path, size: int) -> dict[str, object]:
    """The data section for a folder with {train,test}/{inputs,targets}, masks of one class, ``size`` pixels square."""
    root = folder.resolve()
    return {
        "type": "images",
        "input_path": f"{root}/train/inputs",
        "target_path": f"{root}/train/targets",
        "test_input_path": f"{root}/test/inputs",
        "test_target_path": f"{root}/test/targets",
        "batch_size": 16,
        "target_is_mask": True,
        "target_grayscale": True,
        "preload": True,
        "transforms": [{"resize": [size, size]}],
    }


def accuracies(network: Mapping[str, object], folder: Path, *options: str, seed: int) -> list[float]:
    """The Dice accuracy of every epoch of the document's section ``neural_network``, trained in ``folder``.

    Ends the program with the engine's last words where it fails.
    """
    (folder / "config.json").write_text(json.dumps({"neural_network": network}), encoding="utf-8")
    command = [sys.executable, "-m", "rmldnn_torch", "--config=config.json", *options]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "RMLDNN_SEED": str(seed)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stdout[-2000:])
    epochs = read_epochs(without_stamp(line) for line in run.stdout.splitlines())
    return [epoch.accuracy for epoch in epochs if epoch.accuracy is not None]
