"""Records the learning curves of a grid of hyperparameters, for ``replay.py``.

    python benchmarks/record_curves.py --data DIR --out benchmarks/learning_curves.json

Trains the small U-Net with the built-in engine for every optimizer, loss and learning rate of the grid with several
seeds, and keeps the Dice accuracy of every epoch. What stands in the file already is not trained again, so that the
recording can be broken off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_samplers import grid_learning_rates
from rml_search.paths import write_atomically
from rmldnn_contract.training_log import read_epochs, without_stamp

OPTIMIZERS, LOSSES = ("adam", "rmsprop", "sgd"), ("bce", "dice")
SEEDS = (0, 1, 2)


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with {train,test}/{inputs,targets}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=Path, default=CHECKOUT / "layers_small_unet.json")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    curves = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(curve["optimizer"], curve["loss"], curve["learning_rate"], curve["seed"]) for curve in curves}
    for seed, optimizer, loss, rate in itertools.product(SEEDS, OPTIMIZERS, LOSSES, grid_learning_rates(0.001, 0.01)):
        if (optimizer, loss, rate, seed) in done:
            continue
        accuracies = _train(options, optimizer, loss, rate, seed)
        curves.append(
            {"optimizer": optimizer, "loss": loss, "learning_rate": rate, "seed": seed, "accuracies": accuracies}
        )
        write_atomically(options.out, "[\n" + ",\n".join(map(json.dumps, curves)) + "\n]\n")
        print(f"{optimizer}, {loss}, {rate:.3g}, seed {seed}: {max(accuracies):.3f}", flush=True)


def _train(options: argparse.Namespace, optimizer: str, loss: str, rate: float, seed: int) -> list[float]:
    data = options.data.resolve()
    document = {
        "layers": str(options.layers.resolve()),
        "num_epochs": options.epochs,
        "data": {
            "type": "images",
            "input_path": f"{data}/train/inputs",
            "target_path": f"{data}/train/targets",
            "test_input_path": f"{data}/test/inputs",
            "test_target_path": f"{data}/test/targets",
            "batch_size": 16,
            "target_is_mask": True,
            "target_grayscale": True,
            "preload": True,
            "transforms": [{"resize": [options.size, options.size]}],
        },
        "optimizer": {
            "type": optimizer,
            "learning_rate": rate,
            "lr_scheduler": {"type": "Exponential", "gamma": 0.95},
        },
        "loss": {"function": loss},
    }
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "RMLDNN_SEED": str(seed)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps({"neural_network": document}), encoding="utf-8")
        command = [sys.executable, "-m", "rmldnn_torch", "--config=config.json"]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stdout[-2000:])
    epochs = read_epochs(without_stamp(line) for line in run.stdout.splitlines())
    return [round(epoch.accuracy, 4) for epoch in epochs if epoch.accuracy is not None]


if __name__ == "__main__":
    main()
