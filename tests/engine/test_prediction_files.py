"""HDF5 files of predictions: their layout, and what is left when writing them fails."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rmldnn_contract.exit_status import OutputError
from rmldnn_torch.predictions import prediction_file, prediction_path


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Within the block a write beyond that size fails as one to a full disk does (with another error number)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_one_dataset_for_each_sample_and_a_group_for_each_folder(tmp_path: Path) -> None:
    path = prediction_path(str(tmp_path / "out"), rank=0)
    names = ["benign (1).png", "größe.png", "sub/a.png", "sub/b.png"]
    values = torch.rand(4, 2, 3, 5, dtype=torch.float64)
    with prediction_file(path) as file:
        file.write(names[:3], values[:3])
        file.write(names[3:], values[3:])
    assert path == tmp_path / "out" / "output_1.h5"
    with h5py.File(path, "r") as read:
        assert list(read) == ["benign (1).png", "größe.png", "sub"]
        assert list(read["sub"]) == ["a.png", "b.png"]
        for name, expected in zip(names, values, strict=True):
            assert read[name].dtype == np.float32
            np.testing.assert_allclose(read[name][()], expected, rtol=1e-6)
            assert read[name][0, :, :].round().shape == (3, 5)


def test_files_are_numbered_by_process() -> None:
    assert prediction_path("predictions", rank=3) == Path("predictions/output_4.h5")


def test_an_error_leaves_the_file_of_an_earlier_run_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "output_1.h5"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyError), prediction_file(path) as file:  # noqa: PT012
        file.write(["a.png"], torch.rand(1, 1, 2, 2))
        raise KeyError
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def write_noise(path: Path, num_batches: int) -> None:
    with prediction_file(path) as file:
        for number in range(num_batches):
            file.write([f"{number}.png"], torch.rand(1, 1, 100, 100))


@pytest.mark.parametrize("num_batches", [1, 50])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, num_batches: int) -> None:
    path = tmp_path / "output_1.h5"
    with files_of_at_most(20_000), pytest.raises(OutputError, match=r"output_1\.h5: File too large") as caught:
        write_noise(path, num_batches)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), prediction_file(tmp_path / "file" / "output_1.h5"):
        pass
