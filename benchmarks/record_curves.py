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
import tempfile
from pathlib import Path

from one_training import CHECKOUT, accuracies, image_data
from rml_search.search_space import spread
from rml_search.whole_files import write_atomically

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
    for seed, optimizer, loss, rate in itertools.product(SEEDS, OPTIMIZERS, LOSSES, spread(0.001, 0.01, log=True)):
        if (optimizer, loss, rate, seed) in done:
            continue
        curve = _train(options, optimizer, loss, rate, seed)
        curves.append({"optimizer": optimizer, "loss": loss, "learning_rate": rate, "seed": seed, "accuracies": curve})
        write_atomically(options.out, "[\n" + ",\n".join(map(json.dumps, curves)) + "\n]\n")
        print(f"{optimizer}, {loss}, {rate:.3g}, seed {seed}: {max(curve):.3f}", flush=True)


def _train(options: argparse.Namespace, optimizer: str, loss: str, rate: float, seed: int) -> list[float]:
    scheduler = {"type": "Exponential", "gamma": 0.95}
    network = {
        "layers": str(options.layers.resolve()),
        "num_epochs": options.epochs,
        "data": image_data(options.data, options.size),
        "optimizer": {"type": optimizer, "learning_rate": rate, "lr_scheduler": scheduler},
        "loss": {"function": loss},
    }
    with tempfile.TemporaryDirectory() as folder:
        return [round(accuracy, 4) for accuracy in accuracies(network, Path(folder), seed=seed)]


if __name__ == "__main__":
    main()
