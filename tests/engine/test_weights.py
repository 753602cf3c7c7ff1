"""Checkpoints of our own, and Keras's .h5 files that Keras 2.8 itself wrote."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rmldnn_contract.exit_status import CheckpointError, OutputError
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network
from rmldnn_torch.weights import ShapeMismatch, load_checkpoint, save_checkpoint

from .keras_references_reader import FOLDER, write_keras_file
from .test_keras_graph import layer

LIBTORCH_FILE = Path(__file__).parent / "libtorch_references" / "module.pt"
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def small_network() -> Network:
    """The network of weights_only.h5, whole_model.h5 and nested.h5."""
    with np.load(FOLDER / "small.npz") as stored:
        return Network(read_network(json.loads(str(stored["json"])))).eval()


def two_layers(units: int = 2, **norm: object) -> Network:
    first: dict[str, Any] = {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, 3]}}
    layers = [first, layer("BatchNormalization", "norm", **norm), layer("Dense", "head", units=units)]
    for entry in layers:
        entry.pop("inbound_nodes", None)
    return Network(read_network(list(layers)))


def assert_equal_weights(first: Network, second: Network) -> None:
    for name, values in first.state_dict().items():
        assert torch.equal(values, second.state_dict()[name]), name


@pytest.mark.parametrize("file", ["weights_only.h5", "whole_model.h5", "nested.h5"])
def test_files_that_keras_wrote(file: str) -> None:
    network = small_network()
    report = load_checkpoint(FOLDER / file, network)
    assert (report.kind, report.epoch) == ("h5", None)
    assert report.missing == report.skipped == report.mismatched == ()
    assert set(report.loaded) == set(network.state_dict())

    with np.load(FOLDER / "small.npz") as stored, torch.no_grad():
        outputs = network(torch.from_numpy(stored["input"].transpose(0, 3, 1, 2)))
        expected = stored["output"].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_published_line_for_a_normalization_without_scale(tmp_path: Path) -> None:
    """rmldnn looks for gamma whether or not the file has it, and skips it either way."""
    skipped = (("norm.weight", "norm/gamma:0"),)
    values = np.ones(3, np.float32)
    weights = {"norm": {f"norm/{name}:0": values for name in ("beta", "moving_mean", "moving_variance")}}
    weights["head"] = {"head/kernel:0": np.ones((3, 2), np.float32), "head/bias:0": np.ones(2, np.float32)}
    write_keras_file(tmp_path / "without.h5", weights)
    assert load_checkpoint(tmp_path / "without.h5", two_layers(scale=False)).skipped == skipped
    weights["norm"]["norm/gamma:0"] = values
    write_keras_file(tmp_path / "with.h5", weights)
    report = load_checkpoint(tmp_path / "with.h5", two_layers(scale=False))
    assert report.skipped == skipped
    assert report.missing == ()


def test_layers_that_only_one_side_has(tmp_path: Path) -> None:
    weights = {
        "norm": {f"norm/{name}:0": np.full(3, 0.5, np.float32) for name in NORM},
        "fc1000": {"fc1000/kernel:0": np.ones((3, 1000), np.float32)},
    }
    write_keras_file(tmp_path / "weights.h5", weights)
    network = two_layers()
    head = network.state_dict()["head.weight"].clone()

    report = load_checkpoint(tmp_path / "weights.h5", network)

    assert report.skipped == (
        ("fc1000.weight", "fc1000/kernel:0"),
        ("head.weight", "head/kernel:0"),
        ("head.bias", "head/bias:0"),
    )
    assert report.missing == ("head.weight", "head.bias")
    assert report.loaded == tuple(f"norm.{name}" for name in NORM.values())
    assert network.state_dict()["norm.running_var"].tolist() == [0.5] * 3
    assert torch.equal(network.state_dict()["head.weight"], head)


def test_a_layer_of_another_shape_keeps_all_of_its_values(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", two_layers(units=5), epoch=1)
    network = two_layers()
    before = {name: values.clone() for name, values in network.state_dict().items()}

    report = load_checkpoint(tmp_path / "model.pt", network)

    assert report.mismatched == (
        ShapeMismatch("head.weight", "head.weight", (5, 3), (2, 3)),
        ShapeMismatch("head.bias", "head.bias", (5,), (2,)),
    )
    assert report.missing == ("head.weight", "head.bias")
    assert torch.equal(network.state_dict()["head.weight"], before["head.weight"])


def test_a_layer_of_another_class_under_the_same_name_is_skipped(tmp_path: Path) -> None:
    norm = {f"norm/{name}:0": np.full(3, 0.5, np.float32) for name in NORM}
    write_keras_file(tmp_path / "weights.h5", {"norm": norm, "head": {"head/gamma:0": np.ones((2, 3), np.float32)}})
    report = load_checkpoint(tmp_path / "weights.h5", two_layers())
    assert report.missing == ("head.weight", "head.bias")
    assert report.skipped == (
        ("head.weight", "head/gamma:0"),
        ("head.weight", "head/kernel:0"),
        ("head.bias", "head/bias:0"),
    )


def test_a_kernel_of_another_rank_is_a_mismatch(tmp_path: Path) -> None:
    values = {f"norm/{name}:0": np.ones(3, np.float32) for name in NORM}
    write_keras_file(tmp_path / "weights.h5", {"norm": values, "head": {"head/kernel:0": np.ones(6, np.float32)}})
    report = load_checkpoint(tmp_path / "weights.h5", two_layers())
    assert report.mismatched == (ShapeMismatch("head.weight", "head/kernel:0", (6,), (2, 3)),)


def test_long_lists_of_names_come_in_pieces(tmp_path: Path) -> None:
    """HDF5 limits an attribute to 64 KiB; Keras then writes layer_names0, layer_names1, ..."""
    write_keras_file(tmp_path / "weights.h5", {"norm": {f"norm/{name}:0": np.ones(3, np.float32) for name in NORM}})
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = [b"empty"]
        file.attrs["layer_names1"] = [b"norm"]
        file.create_group("empty").attrs["weight_names"] = np.zeros(0)
    assert len(load_checkpoint(tmp_path / "weights.h5", two_layers()).loaded) == 4


def test_our_own_checkpoint(tmp_path: Path) -> None:
    network = small_network()
    load_checkpoint(FOLDER / "weights_only.h5", network)
    path = tmp_path / "new folder" / "model_checkpoint_7.pt"

    save_checkpoint(path, network, epoch=7)

    restored = small_network()
    report = load_checkpoint(path, restored)
    assert (report.kind, report.epoch) == ("pt", 7)
    assert report.skipped == report.mismatched == report.missing == ()
    assert_equal_weights(restored, network)
    document = torch.load(path, weights_only=True)
    assert document["epoch"] == 7
    assert "encoder_conv.weight" in document["parameters"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_plain_state_dict_of_half_precision(tmp_path: Path) -> None:
    network = two_layers()
    with torch.no_grad():
        network.get_submodule("head").get_parameter("weight").fill_(0.125)
    torch.save({name: values.half() for name, values in network.state_dict().items()}, tmp_path / "plain.pt")
    restored = two_layers()
    report = load_checkpoint(tmp_path / "plain.pt", restored)
    assert report.epoch is None
    assert restored.state_dict()["head.weight"].dtype == torch.float32
    assert_equal_weights(restored, network)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, small_network(), epoch=1)
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=os.strerror(errno.EFBIG)):
            save_checkpoint(path, small_network(), epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        save_checkpoint(tmp_path / "file" / "model.pt", small_network(), epoch=1)


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def _truncated(path: Path, keep: float) -> bytes:
    data = path.read_bytes()
    return data[: int(len(data) * keep)]


def test_foreign_and_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "good.pt", small_network(), epoch=1)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"parameters": 3}, tmp_path / "number.pt")
    torch.save({"format": "rmldnn_torch", "format_version": 2, "parameters": {}}, tmp_path / "future.pt")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    with h5py.File(tmp_path / "broken_link.h5", "w") as file:
        file.attrs["layer_names"] = [b"norm"]
    write_keras_file(tmp_path / "text.h5", {"norm": {"norm/gamma:0": np.array([b"one"])}})  # type: ignore[dict-item]
    contents: dict[str, bytes] = {
        "empty.pt": b"",
        "text.pt": b"no checkpoint",
        "half.pt": _truncated(tmp_path / "good.pt", 0.5),
        "almost.pt": _truncated(tmp_path / "good.pt", 0.99),
        "half.h5": _truncated(FOLDER / "weights_only.h5", 0.5),
        "attack.pt": pickle.dumps({"parameters": _Attack()}),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    others = (
        "list.pt",
        "number.pt",
        "future.pt",
        "other.pt",
        "other.h5",
        "broken_link.h5",
        "text.h5",
        "missing.pt",
        ".",
    )

    for name in (*contents, *others):
        network = two_layers()
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(Path(name), network)
        assert repr(name) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "attacked").exists()


def test_a_file_that_libtorch_wrote() -> None:
    """Written by make_module.cpp beside it: its weights count up in eighths."""
    network = two_layers()
    report = load_checkpoint(LIBTORCH_FILE, network)
    assert (report.kind, report.epoch, report.skipped, report.missing) == ("pt", None, (), ())
    values = torch.cat([values.flatten() for values in network.state_dict().values()])
    torch.testing.assert_close(values, torch.arange(20) / 8)
    assert network.state_dict()["head.weight"].tolist() == [[1.5, 1.625, 1.75], [1.875, 2.0, 2.125]]


class _Scripted(torch.nn.Module):
    """Under the names of ``two_layers``, with attributes of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3).bfloat16()
        self.head = torch.nn.Linear(3, 5)
        self.head.weight = torch.nn.Parameter(torch.randn(3, 2).T)  # not contiguous
        self.head.bias = torch.nn.Parameter(torch.arange(9.0)[3:5])  # a part of its storage
        self.other = torch.nn.Parameter(torch.zeros(1))
        self.sizes = [1, 2]
        self.names = {"a": 1.5}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(inputs))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_archive(tmp_path: Path) -> None:
    module = _Scripted()
    torch.jit.save(torch.jit.script(module), str(tmp_path / "script.pt"))
    network = two_layers()
    report = load_checkpoint(tmp_path / "script.pt", network)
    assert report.skipped == (("other", "other"),)
    assert report.missing == ()
    for name, values in network.state_dict().items():
        torch.testing.assert_close(values, module.state_dict()[name].float(), rtol=0, atol=0)


def _rewritten_archive(path: Path, record: str, data: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """The file of libtorch with other bytes in one of its records."""
    with zipfile.ZipFile(LIBTORCH_FILE) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            ours = name == f"module/{record}"
            target.writestr(name, data if ours else source.read(name), compression if ours else zipfile.ZIP_STORED)


def _record(name: str) -> bytes:
    with zipfile.ZipFile(LIBTORCH_FILE) as archive:
        return archive.read(f"module/{name}")


# The size of head.weight, (2, 3), with which its pickle begins a tuple; and (9, 3), which its 24 bytes do not hold.
_SIZE, _LARGER_SIZE = b"(K\x02K\x03t", b"(K\x09K\x03t"


@pytest.mark.parametrize(
    ("record", "data", "compression"),
    [
        ("data.pkl", pickle.dumps({"head": _Attack()}, protocol=2), zipfile.ZIP_STORED),
        ("data.pkl", b"cos\nmkdir\n(X\x08\x00\x00\x00attackedtR.", zipfile.ZIP_STORED),
        ("data.pkl", pickle.dumps([1, 2], protocol=2), zipfile.ZIP_STORED),
        ("data.pkl", b"", zipfile.ZIP_STORED),
        ("data.pkl", _record("data.pkl").replace(_SIZE, _LARGER_SIZE), zipfile.ZIP_STORED),
        ("data.pkl", _record("data.pkl").replace(b"storage", b"stowage"), zipfile.ZIP_STORED),
        ("data/5", _record("data/5")[:12], zipfile.ZIP_STORED),
        ("data/5", _record("data/5"), zipfile.ZIP_DEFLATED),
    ],
    ids=["reduce", "global", "no module", "empty", "outside", "no storage", "short", "compressed"],
)
def test_archives_that_attack_or_are_damaged(
    record: str, data: bytes, compression: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _SIZE in _record("data.pkl")
    monkeypatch.chdir(tmp_path)
    _rewritten_archive(tmp_path / "module.pt", record, data, compression)
    with pytest.raises(CheckpointError, match=r"'module\.pt' is no checkpoint"):
        load_checkpoint(Path("module.pt"), two_layers())
    assert not (tmp_path / "attacked").exists()
