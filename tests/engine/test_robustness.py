"""Files as people have them, through the whole engine: each works, or is one line that names it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_torch.images import read_binary_mask
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network

from .conftest import convolution, layers_of
from .runs import Document, Runs

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
MASK = (PIXELS > 100).astype(np.uint8)
LAYERS = layers_of(convolution("conv1", 4, "relu"))


def turned() -> tuple[Image.Image, dict[str, object]]:
    """Lying on its side, with the word that a viewer must turn it clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(np.rot90(PIXELS).copy()), {"exif": exif}


def palette(values: NDArray[np.uint8]) -> Image.Image:
    """The values looked up in a palette that holds them backwards."""
    image = Image.fromarray(255 - values).convert("P")
    image.putpalette([level for level in range(255, -1, -1) for _ in range(3)])
    return image


def on_transparent_white() -> Image.Image:
    """Black pixels are not black but transparent."""
    image = Image.fromarray(PIXELS).convert("RGBA")
    colors = np.array(image)
    colors[PIXELS == 0] = (255, 255, 255, 0)
    return Image.fromarray(colors)


@pytest.fixture
def folder(working_folder: Path) -> Path:
    """The same picture in every form, and its mask likewise, as training and as test data."""
    for kind in ("inputs", "targets"):
        (working_folder / kind).mkdir()
    sideways, exif = turned()
    Image.fromarray(PIXELS).save("inputs/plain.png")
    Image.fromarray(PIXELS.astype(np.uint16) * 257).save("inputs/sixteen bits.png")
    palette(PIXELS).save("inputs/palette.png")
    on_transparent_white().save("inputs/alpha.png")
    sideways.save("inputs/turned.png", **exif)  # type: ignore[arg-type]
    Image.fromarray(PIXELS).save("inputs/lzw.tif", compression="tiff_lzw")
    Image.fromarray(np.stack([PIXELS] * 3, axis=-1)).save("inputs/colours.tiff")
    masks = [
        Image.fromarray(MASK * 255),
        Image.fromarray(MASK),
        Image.fromarray(np.where(MASK, 250 - PIXELS // 8, PIXELS // 2)),  # grey levels, as smooth edges leave them
        Image.fromarray(MASK.astype(np.uint16) * 65535),
        Image.fromarray(MASK.astype(bool)),
        Image.fromarray(MASK * 255).convert("RGBA"),
        palette(MASK * 255),
    ]
    for path, mask in zip(sorted(Path("inputs").iterdir()), masks, strict=True):
        mask.save(Path("targets", path.name).with_suffix(".png"))
    return working_folder


@pytest.fixture
def document(folder: Path) -> Document:
    data = {"type": "images", "grayscale": True, "target_is_mask": True}
    data |= {"input_path": "inputs", "target_path": "targets", "batch_size": 7}
    data |= {"test_input_path": "inputs", "test_target_path": "targets"}
    network = {
        "outfile": "out.txt",
        "layers": LAYERS,
        "data": data,
        "checkpoints": {"save": "saved/"},
        "optimizer": {"type": "SGD"},
        "loss": {"function": "BCE"},
    }
    return {"neural_network": network}


def test_one_picture_in_every_form_is_one_picture(document: Document, run: Runs) -> None:
    for path in Path("targets").iterdir():
        np.testing.assert_array_equal(read_binary_mask(path)[..., 0], MASK)
    run(document)
    data = {"type": "images", "grayscale": True, "test_input_path": "inputs", "test_output_path": "predictions"}
    run({"neural_network": {"layers": LAYERS, "data": data, "checkpoints": {"load": "saved/model_checkpoint_1.pt"}}})
    with h5py.File("predictions/output_1.h5") as file:
        predictions = {name: file[name][()] for name in file}
    assert len(predictions) == 7
    for prediction in predictions.values():
        np.testing.assert_allclose(prediction, predictions["plain.png"], atol=1e-6)


def is_refused(run: Runs, document: Document, status: ExitStatus, *parts: str, **changes: object) -> None:
    """Whether a run ends with that status and one line that has these parts."""
    run(document, status=status, **changes)
    assert run.lines[-1].startswith("Error: ")
    for part in parts:
        assert part in run.lines[-1]
    assert not list(Path().glob("rmldnn_traceback*"))


@pytest.mark.parametrize("name", ["inputs/plain.png", "inputs/lzw.tif", "targets/plain.png"])
@pytest.mark.parametrize("preload", [True, False])
def test_a_truncated_image(name: str, preload: bool, document: Document, run: Runs) -> None:
    path = Path(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    document["neural_network"]["data"]["preload"] = preload
    is_refused(run, document, ExitStatus.DATA, f"cannot read the image {name}: ", "replace or remove it")


IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import rmldnn_torch.run
from rmldnn_torch.command_line import main
# As much as the process has, and 700 MiB: enough for threads, too little for the images below.
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 700 * 2**20,) * 2)
sys.exit(main(["--config=config.json"]))
"""


def is_refused_in_little_memory(document: Document, *parts: str) -> None:
    """In a process of its own: what this one has freed before, an allocator may still hold."""
    Path("config.json").write_text(json.dumps(document), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", IN_LITTLE_MEMORY]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == ExitStatus.OUT_OF_MEMORY, answer.stdout + answer.stderr
    assert all(part in answer.stdout.splitlines()[-1] for part in parts)


def png_of(width: int, height: int) -> bytes:
    """The beginning of a file that is as large as any that is read at all."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100))]
    coded = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


@pytest.mark.parametrize("name", ["inputs/plain.png", "targets/plain.png"])
def test_an_image_that_is_larger_than_memory(name: str, document: Document) -> None:
    Path(name).write_bytes(png_of(2**14, 2**14))
    is_refused_in_little_memory(document, f"the image {name} does not fit into memory: make it smaller")


def test_an_image_that_becomes_larger_than_memory(document: Document) -> None:
    document["neural_network"]["data"]["transforms"] = [{"resize": [50_000, 50_000]}]
    parts = ("inputs/", "resize [50000, 50000] makes an image that does not fit into memory")
    is_refused_in_little_memory(document, *parts)


@pytest.mark.filterwarnings("ignore:Sparse CSR.*beta")
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        lambda values: values.flatten(1).to_sparse_csr(),
        lambda values: values.to(torch.complex64),
    ],
    ids=["sparse", "sparse rows", "complex"],
)
def test_other_tensors_in_a_checkpoint(
    convert: Callable[[torch.Tensor], torch.Tensor], document: Document, run: Runs
) -> None:
    weights = Network(read_network(LAYERS)).state_dict()
    torch.save(weights | {"conv1.weight": convert(weights["conv1.weight"])}, "other.pt")
    parts = (
        "'other.pt' holds conv1.weight as a sparse or complex tensor",
        "save a dense one of real numbers",
    )
    is_refused(run, document, ExitStatus.CHECKPOINT, *parts, checkpoints={"load": "other.pt"})
