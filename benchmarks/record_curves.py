"""Records the learning curves of a grid of hyperparameters, for ``replay.py``.

    python benchmarks/record_curves.py --data DIR --out benchmarks/learning_curves.json

Trains the small U-Net with the built-in engine for every optimizer, loss and learning rate of the grid with several
seeds, and keeps the Dice accuracy of every epoch. With ``--augmented`` each is trained with random geometry as well.
What stands in the file already is not trained again, so that the recording can be broken off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from one_training import CHECKOUT, accuracies, image_data
from rml_search.search_space import spread
from rml_search.whole_files import write_atomically

OPTIMIZERS, LOSSES = ("adam", "rmsprop", "sgd"), ("bce", "dice")
AUGMENTATION = [{"random_horizontal_flip": 0.5}, {"random_rotate": 15}, {"random_zoom": 0.2}]


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with {train,test}/{inputs,targets}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=Path, default=CHECKOUT / "layers_small_unet.json")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--decay", type=float, default=0.95, help="of the learning rate in each epoch")
    parser.add_argument("--rates", type=int, default=5, help="learning rates of the grid, from 0.001 to 0.01")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each point")
    parser.add_argument("--augmented", action="store_true", help="train each point with and without augmentation")
    options = parser.parse_args()
    curves = json.loads(options.out.read_text()) if options.out.exists() else []
    recorded = [{name: value for name, value in curve.items() if name != "accuracies"} for curve in curves]
    for point in _grid(options):
        if point in recorded:
            continue
        curve = _train(options, point)
        curves.append({**point, "accuracies": curve})
        write_atomically(options.out, "[\n" + ",\n".join(map(json.dumps, curves)) + "\n]\n")
        print(f"{', '.join(map(str, point.values()))}: {max(curve):.3f}", flush=True)


def _grid(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """The points, the first seed of all before the second."""
    rates = spread(0.001, 0.01, options.rates, log=True)
    kinds: list[dict[str, object]] = [{}, {"augmented": True}] if options.augmented else [{}]
    for seed, optimizer, loss, rate, kind in itertools.product(range(options.seeds), OPTIMIZERS, LOSSES, rates, kinds):
        yield {"optimizer": optimizer, "loss": loss, "learning_rate": rate, "seed": seed, **kind}


def _train(options: argparse.Namespace, point: Mapping[str, Any]) -> list[float]:
    scheduler = {"type": "Exponential", "gamma": options.decay}
    data = image_data(options.data, options.size)
    if "augmented" in point:
        data["transforms"] = [{"resize": [options.size] * 2}, *AUGMENTATION]
    network = {
        "layers": str(options.layers.resolve()),
        "num_epochs": options.epochs,
        "data": data,
        "optimizer": {"type": point["optimizer"], "learning_rate": point["learning_rate"], "lr_scheduler": scheduler},
        "loss": {"function": point["loss"]},
    }
    with tempfile.TemporaryDirectory() as folder:
        return [round(accuracy, 4) for accuracy in accuracies(network, Path(folder), seed=point["seed"])]


if __name__ == "__main__":
    main()
