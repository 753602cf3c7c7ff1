"""What ``demo`` searches: a small synthetic data set and a small network."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rml_search.errors import EngineFailedError
from rml_search.options import SearchOptions
from rml_search.runtime.local import engine_module
from rml_search.synthetic import write_synthetic_data

IMAGE_SIZE = 96
NUM_TRAIN = 120
NUM_TEST = 30
NUM_TRIALS = 5
NUM_EPOCHS = 5
SEED = 7


def demo_options(root: Path) -> SearchOptions:
    """The demo's search, on the files that :func:`write_demo_files` leaves in ``root``."""
    return SearchOptions(
        num_trials=NUM_TRIALS,
        num_epochs=NUM_EPOCHS,
        optimizers=("adam", "rmsprop", "sgd"),
        losses=("bce", "dice"),
        layers=(layers_file(root),),
        data=data_folder(root),
        batch_size=8,
        image_size=(IMAGE_SIZE, IMAGE_SIZE),
        seed=SEED,
    )


def data_folder(root: Path) -> Path:
    """Where the demo's images lie."""
    return root / "data"


def layers_file(root: Path) -> Path:
    """The demo's network."""
    return root / "layers_small_unet.json"


def write_demo_files(root: Path) -> None:
    """Writes the images and the network, unless a demo before has left them.

    Raises:
        WriteError: the folder cannot be written.
        EngineFailedError: the network could not be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    data, layers = data_folder(root), layers_file(root)
    if not data.exists() or not any(data.iterdir()):
        write_synthetic_data(data, num_train=NUM_TRAIN, num_test=NUM_TEST, size=IMAGE_SIZE, seed=SEED)
    # The engine's own builder writes the network; the driver imports nothing of the engine.
    size = str(IMAGE_SIZE)
    builder = [*engine_module("rmldnn_torch.architectures"), "small_unet", str(layers)]
    answer = subprocess.run([*builder, "--size", size, size], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise EngineFailedError(f"cannot write {layers}: {answer.stderr.strip()}")
