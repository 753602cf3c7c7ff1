"""Arrays in files, whole or in slices, as samples: against what NumPy and h5py wrote."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rmldnn_contract.data import Data
from rmldnn_contract.exit_status import ConfigurationError, DataError, MemoryExhaustedError
from rmldnn_torch import arrays
from rmldnn_torch.arrays import ArrayFile, ArrayType, list_arrays, open_array, read_array
from rmldnn_torch.data import Batch, DataSettings, Loader
from rmldnn_torch.datasets import open_test_data, open_training_data
from rmldnn_torch.log import Log

NOISE = np.random.default_rng(0).normal(size=(4, 3, 6, 5)).astype(np.float32)  # samples of three channels


def opened(document: dict[str, object], *, training: bool = False, log: Log | None = None, **settings: Any) -> Loader:
    data = Data.model_validate({"type": "numpy", **document})
    loader = (open_training_data if training else open_test_data)(
        data, DataSettings(**{"num_classes": 1, **settings}), log or Log(silent=True)
    )
    assert loader is not None
    return loader


def only_batch(document: dict[str, object], **settings: Any) -> Batch:
    (batch,) = opened(document, **settings).batches(0)
    return batch


def save_each(folder: Path, samples: NDArray[Any]) -> Path:
    folder.mkdir()
    for number, sample in enumerate(samples):
        np.save(folder / f"s{number}.npy", sample)
    return folder


# --- files


def test_names_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "b.npy", NOISE[0])
    np.savez(tmp_path / "sub" / "a.npz", one=NOISE[0], two=NOISE[1])
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["group/x"] = NOISE[2]
    assert [array.name for array in list_arrays(tmp_path, "numpy")] == ["b.npy", "sub/a.npz/one", "sub/a.npz/two"]
    assert [array.name for array in list_arrays(tmp_path, "hdf5")] == ["c.h5/group/x"]
    assert [array.name for array in list_arrays(tmp_path / "b.npy", "numpy")] == ["b.npy"]
    assert [array.name for array in list_arrays(tmp_path / "sub" / "a.npz", "numpy")] == ["one", "two"]
    for array, expected in zip(list_arrays(tmp_path / "sub" / "a.npz", "numpy"), NOISE, strict=False):
        np.testing.assert_array_equal(read_array(array), expected)
    np.testing.assert_array_equal(read_array(list_arrays(tmp_path / "c.h5", "hdf5")[0]), NOISE[2])


@pytest.mark.parametrize("kind", ["numpy", "hdf5"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, kind: ArrayType) -> None:
    suffix = {"numpy": ".npz", "hdf5": ".h5"}[kind]
    (tmp_path / f"text{suffix}").write_text("no array")
    with pytest.raises(DataError, match=rf"cannot read .*text\{suffix}: .*; replace or remove it"):
        list_arrays(tmp_path, kind)
    with pytest.raises(DataError, match="there is neither a file nor a folder"):
        list_arrays(tmp_path / "none", kind)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=f"is no {kind} file"):
        list_arrays(tmp_path / "notes.txt", kind)


def test_a_truncated_array_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", NOISE)
    content = (tmp_path / "a.npy").read_bytes()
    for length in (0, 5, 60, 200):
        (tmp_path / "a.npy").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cannot read .*a\.npy"):
            read_array(*list_arrays(tmp_path, "numpy"))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    np.save(tmp_path / "a.npy", np.array([Harmful()], dtype=object))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Harmful()))
    for array in list_arrays(tmp_path, "numpy"):
        with pytest.raises(DataError, match="cannot read"):
            open_array(array)
    assert not (tmp_path / "executed").exists()


def test_what_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(["text"]))
    with pytest.raises(DataError, match=r"a\.npy holds <U4, not numbers"):
        read_array(*list_arrays(tmp_path, "numpy"))


def test_an_array_that_does_not_fit_into_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", NOISE)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(arrays.np, "array", fail)
    with pytest.raises(MemoryExhaustedError, match=r"a\.npy does not fit into memory: set preload to false"):
        read_array(ArrayFile(tmp_path / "a.npy", "a.npy"))


# --- whole arrays as samples


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_the_same_samples_from_every_format(tmp_path: Path, kind: str, preload: bool) -> None:
    path = tmp_path / f"samples.{kind}"
    names = [f"s{number}" for number in range(4)]
    if kind == "npy":
        path = save_each(tmp_path / "samples", NOISE)
        names = [f"{name}.npy" for name in names]
    elif kind == "npz":
        np.savez(path, **dict(zip(names, NOISE, strict=True)))
    else:
        with h5py.File(path, "w") as file:
            file.update(dict(zip(names, NOISE.astype(np.float64), strict=True)))
    batch = only_batch({"type": "hdf5" if kind == "h5" else "numpy", "test_input_path": str(path), "preload": preload})
    assert list(batch.names) == names
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.inputs, NOISE)  # channels in front, and no division by 255


def test_arrays_without_channels_get_one(tmp_path: Path) -> None:
    integers = np.arange(2 * 6 * 5, dtype=np.uint8).reshape(2, 6, 5)
    folder = save_each(tmp_path / "a", integers)
    batch = only_batch({"test_input_path": str(folder)})
    np.testing.assert_array_equal(batch.inputs[:, 0], integers)
    volumes = only_batch({"test_input_path": str(save_each(tmp_path / "b", NOISE))}, num_input_axes=3)
    assert volumes.inputs.shape == (4, 1, 3, 6, 5)
    vectors = only_batch({"test_input_path": str(save_each(tmp_path / "c", NOISE[:, 0, 0]))}, num_input_axes=0)
    np.testing.assert_array_equal(vectors.inputs, NOISE[:, 0, 0])
    with pytest.raises(DataError, match=r"s0\.npy: its shape is 6x5, and the network works on 3 axes"):
        only_batch({"test_input_path": str(folder)}, num_input_axes=3)


def targets(tmp_path: Path, values: NDArray[Any], **changes: Any) -> torch.Tensor:
    """The targets of a batch whose inputs are as many arrays of noise."""
    settings = {key: changes.pop(key) for key in ("num_classes", "ignore_index", "num_target_axes") if key in changes}
    folders = [save_each(tmp_path / f"{len(list(tmp_path.iterdir()))}", samples) for samples in (NOISE, values)]
    document = {"test_input_path": str(folders[0]), "test_target_path": str(folders[1]), **changes}
    batch = only_batch(document, **settings)
    assert batch.targets is not None
    return batch.targets


def test_what_targets_say(tmp_path: Path) -> None:
    classes = np.arange(4 * 6 * 5).reshape(4, 6, 5) % 3
    for dtype in (np.uint8, np.int64, np.float64):
        read = targets(tmp_path, classes.astype(dtype), num_classes=3)
        assert read.dtype == torch.int64
        np.testing.assert_array_equal(read, classes)
    for ignored in (-100, 255, 65535, 2**24):
        with_ignored = np.where(classes == 1, ignored, classes)
        read = targets(tmp_path, with_ignored, num_classes=3, ignore_index=ignored)
        np.testing.assert_array_equal(read, with_ignored)
    np.testing.assert_array_equal(targets(tmp_path, NOISE, num_classes=3), NOISE)
    np.testing.assert_array_equal(targets(tmp_path, NOISE[:, 0])[:, 0], NOISE[:, 0])
    np.testing.assert_array_equal(targets(tmp_path, NOISE[:, 0], target_is_mask=True)[:, 0], NOISE[:, 0] > 0)
    np.testing.assert_array_equal(targets(tmp_path, NOISE[:, 0, 0], num_classes=5, num_target_axes=0), NOISE[:, 0, 0])


def test_values_that_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s0\.npy: the value 3 is none of the classes 0 to 2 of the network"):
        targets(tmp_path, np.full((4, 6, 5), 3), num_classes=3)
    for value in (0.5, np.nan, 1e9, -1.0):
        with pytest.raises(DataError, match="is none of the classes"):
            targets(tmp_path, np.full((4, 6, 5), value), num_classes=3)
    with pytest.raises(ConfigurationError, match="masks of class numbers have none"):
        targets(tmp_path, NOISE, num_classes=3, target_is_mask=True)


def test_transforms_of_arrays_of_two_axes(tmp_path: Path) -> None:
    image = np.arange(36, dtype=np.float32).reshape(6, 6)
    folder = str(save_each(tmp_path / "a", image[None]))
    document: dict[str, object] = {"test_input_path": folder}
    turned = only_batch(document | {"transforms": [{"rotate": 90}, {"normalize": {"mean": 1, "std": 2}}]})
    np.testing.assert_allclose(turned.inputs[0, 0], (np.rot90(image, -1) - 1) / 2, atol=1e-5)
    small = only_batch(document | {"transforms": [{"resize": [3, 3]}]})
    np.testing.assert_allclose(small.inputs[0, 0], image.reshape(3, 2, 3, 2).mean(axis=(1, 3)), atol=1e-5)
    training = {"input_path": folder, "target_path": folder, "transforms": [{"random_horizontal_flip": 1.0}]}
    (flipped,) = opened(training, training=True).batches(1)
    np.testing.assert_allclose(flipped.inputs[0, 0], image[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(flipped.targets[0, 0], image[:, ::-1], atol=1e-4)  # type: ignore[index]
    volume = str(save_each(tmp_path / "b", NOISE))
    with pytest.raises(ConfigurationError, match="transforms but normalize need samples of two axes"):
        opened({"test_input_path": volume, "transforms": [{"resize": [3, 3]}]}, num_input_axes=3)
    normalized = only_batch({"test_input_path": volume, "transforms": [{"normalize": {"mean": 1}}]}, num_input_axes=3)
    np.testing.assert_allclose(normalized.inputs[:, 0], NOISE - 1, rtol=1e-6)


def test_images_and_arrays_pair_by_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("L", (5, 6), 51).save(tmp_path / "images" / f"{name}.png")
    np.savez(tmp_path / "maps.npz", b=NOISE[1, 0], a=NOISE[0, 0])
    document = {"input_type": "images", "target_type": "numpy", "grayscale": True}
    document |= {"test_input_path": str(tmp_path / "images"), "test_target_path": str(tmp_path / "maps.npz")}
    batch = only_batch(document)
    np.testing.assert_allclose(batch.inputs, 0.2)
    np.testing.assert_array_equal(batch.targets[:, 0], NOISE[:2, 0])  # type: ignore[index]


# --- slices


VOLUME = np.random.default_rng(1).normal(size=(8, 7, 6)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 3, VOLUME.shape)


@pytest.fixture(params=["npy", "npz", "h5"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    """The ``data`` of a volume and its classes, in each format."""
    paths = [tmp_path / f"{name}.{request.param}" for name in ("volume", "classes")]
    for path, array in zip(paths, (VOLUME, LABELS), strict=True):
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".npz":
            np.savez(path, array)
        else:
            with h5py.File(path, "w") as file:
                file["volume"] = array
    kind = "hdf5" if request.param == "h5" else "numpy"
    return {"type": kind, "test_input_path": str(paths[0]), "test_target_path": str(paths[1]), "test_batch_size": 2}


@pytest.mark.parametrize("preload", [True, False])
def test_slices_of_a_volume(volume: dict[str, object], preload: bool, capsys: pytest.CaptureFixture[str]) -> None:
    document = volume | {"preload": preload, "slicers": [{"sizes": [4, 4, 6], "name": "bricks"}]}
    loader = opened(document, log=Log(), num_classes=3, num_input_axes=3, num_target_axes=3)
    output = capsys.readouterr().out
    assert "Discovering test input arrays..." in output
    assert "Slicer bricks: 4 samples of 4x4x6" in output
    first, second = loader.batches(0)
    assert first.names == ("0:4,0:4,0:6", "0:4,4:7,0:6")
    assert first.inputs.shape == (2, 1, 4, 4, 6)
    np.testing.assert_array_equal(second.inputs[0, 0], VOLUME[4:8, 0:4])
    np.testing.assert_array_equal(first.inputs[1, 0, :, :3], VOLUME[0:4, 4:7])
    assert not first.inputs[1, 0, :, 3].any()
    assert second.targets is not None
    np.testing.assert_array_equal(second.targets[0], LABELS[4:8, 0:4])


def test_what_is_filled_up_does_not_count_where_the_loss_ignores_a_class(volume: dict[str, object]) -> None:
    document = volume | {"slicers": [{"sizes": [8, 1, 5], "padding": [1, 0, 0]}], "test_batch_size": 100}
    batch = only_batch(document, num_classes=3, ignore_index=-1)
    assert batch.targets is not None
    assert batch.targets.shape == (14, 10, 5)
    np.testing.assert_array_equal(batch.targets[0, 1:-1], LABELS[:, 0, :5])
    assert (batch.targets[:, [0, -1]] == -1).all()
    assert (batch.targets[1, :, 1:] == -1).all()
    beyond = only_batch(document, num_classes=3, ignore_index=70000)
    assert beyond.targets is not None
    np.testing.assert_array_equal(beyond.targets, batch.targets.where(batch.targets != -1, 70000))
    assert not only_batch(document, num_classes=3).targets[:, [0, -1]].any()  # type: ignore[index]


def test_sets_of_slices_share_no_batch(volume: dict[str, object]) -> None:
    document = volume | {"slicers": [{"sizes": [1, 7, 6]}, {"sizes": [8, 1, 6]}], "test_batch_size": 3}
    document |= {"input_path": volume["test_input_path"], "target_path": volume["test_target_path"], "batch_size": 3}
    test = opened(document, num_classes=3)
    shapes = [tuple(batch.inputs.shape) for batch in test.batches(0)]
    rows, columns = (1, 7, 6), (1, 8, 6)
    assert shapes == [(3, *rows), (3, *rows), (2, *rows), (3, *columns), (3, *columns), (1, *columns)]
    assert len(test) == 6
    training = opened(document, training=True, num_classes=3)
    batches = list(training.batches(1))
    assert sorted(name for batch in batches for name in batch.names) == sorted(training.dataset.names)
    orders = [[batch.inputs.shape[2] for batch in training.batches(epoch)] for epoch in range(8)]
    assert all(sorted(order) == [7, 7, 7, 8, 8, 8] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_slices_need_one_array_for_each_side(volume: dict[str, object], tmp_path: Path) -> None:
    slicers = [{"sizes": [1, 7, 6]}]
    with pytest.raises(DataError, match="the slices have 2 dimensions, the network works on 3"):
        opened(volume | {"slicers": slicers}, num_classes=3, num_input_axes=3, num_target_axes=3)
    two = save_each(tmp_path / "two", VOLUME)
    with pytest.raises(DataError, match="two holds 8 arrays: slicers cut a single one"):
        opened({"test_input_path": str(two), "slicers": slicers})
    np.save(tmp_path / "other.npy", VOLUME[:4])
    np.save(tmp_path / "one.npy", VOLUME)
    document = {"test_input_path": str(tmp_path / "one.npy"), "test_target_path": str(tmp_path / "other.npy")}
    with pytest.raises(DataError, match=r"one\.npy and .*other\.npy differ in shape"):
        opened({**document, "slicers": slicers}, num_classes=3)


def test_streaming_takes_no_more_memory_than_its_slices(tmp_path: Path) -> None:
    # A file of 1 GiB, nearly all of it a hole that takes no place on the disk.
    stored = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(1024, 512, 512))
    stored[1000:1002, 5, 7] = 1.0
    stored.flush()
    del stored
    tracemalloc.start()  # NumPy tells it of every array but mapped ones; tensors here are such arrays
    document: dict[str, object] = {"test_input_path": str(tmp_path / "big.npy"), "slicers": [{"sizes": [2, 64, 64]}]}
    loader = opened(document, num_input_axes=3)
    samples, _ = loader.dataset.fetch([500 * 64, 501 * 64])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20
    assert len(loader.dataset.names) == 512 * 8 * 8
    assert isinstance(samples, torch.Tensor)
    assert samples[:, :, 5, 7, 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert samples.sum() == 2
