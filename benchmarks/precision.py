"""Whether bf16 changes the accuracy: the same trainings in float32 and in bf16, with several seeds.

    python benchmarks/precision.py                           # synthetic scans
    python benchmarks/precision.py --data DIR --epochs 8     # a folder with {train,test}/{inputs,targets}

Prints the Dice accuracy of the best epoch for each seed and precision. Two seeds of one precision differ by chance; two
precisions may not differ by more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tabulate import tabulate

from one_training import CHECKOUT, accuracies, image_data
from rml_search.synthetic import write_synthetic_data

PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the images; by default 96 + 32 synthetic scans of 128x128 pixels")
    parser.add_argument("--layers", type=Path, default=CHECKOUT / "layers_small_unet.json")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2, to tell a difference from chance")
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            options.data = Path(folder, "data")
            write_synthetic_data(options.data, num_train=96, num_test=32, size=128, seed=0)
        best: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        for seed in range(options.seeds):
            for precision in PRECISIONS:
                best[precision].append(_best_accuracy(options, precision, seed, Path(folder)))
    rows = [[f"seed {seed}", *(best[name][seed] for name in PRECISIONS)] for seed in range(options.seeds)]
    rows.append(["mean", *(statistics.mean(best[name]) for name in PRECISIONS)])
    rows.append(["standard deviation", *(statistics.stdev(best[name]) for name in PRECISIONS)])
    print(tabulate(rows, headers=["best Dice", *PRECISIONS], floatfmt=".3f"))


def _best_accuracy(options: argparse.Namespace, precision: str, seed: int, folder: Path) -> float:
    network = {
        "layers": str(options.layers.resolve()),
        "num_epochs": options.epochs,
        "data": image_data(options.data, options.size),
        "optimizer": {"type": "Adam", "learning_rate": 0.001},
        "loss": {"function": "BCE"},
    }
    return max(accuracies(network, folder, f"--precision={precision}", seed=seed))


if __name__ == "__main__":
    main()
