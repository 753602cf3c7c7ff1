"""Predictions as the contract describes them: one dataset (C,H,W) for each image, groups for subfolders."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from rml_search.errors import DataSetError
from rml_search.predictions import lesion_probability, read_predictions


def write(path: Path, **images: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, scores in images.items():
            file[name.replace("__", "/")] = scores


def test_all_files_of_a_folder(tmp_path: Path) -> None:
    """Two processes have written, and one image lies in a subfolder."""
    a, b, c = (np.full((1, 2, 3), value, dtype=np.float32) for value in (0.1, 0.2, 0.3))
    write(tmp_path / "output_1.h5", a=a, benign__b=b)
    write(tmp_path / "output_2.h5", c=c)
    found = dict(read_predictions(tmp_path))
    assert found.keys() == {"a", "benign/b", "c"}
    for name, expected in (("a", a), ("benign/b", b), ("c", c)):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected)
    assert {name for name, _ in read_predictions(tmp_path / "output_2.h5")} == {"c"}
    assert len([*read_predictions([tmp_path / "output_1.h5", tmp_path / "output_2.h5"])]) == 3


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"contains no predictions \(output_1.h5\): run the inference first"):
        list(read_predictions(tmp_path))
    with pytest.raises(DataSetError, match=r"output_1.h5 does not exist"):
        list(read_predictions(tmp_path / "output_1.h5"))


def test_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataSetError, match=r"text.h5 is not a readable HDF5 file"):
        list(read_predictions(tmp_path / "text.h5"))
    write(tmp_path / "flat.h5", a=np.zeros(5, dtype=np.float32))
    with pytest.raises(DataSetError, match=r"flat.h5: a should have shape"):
        list(read_predictions(tmp_path / "flat.h5"))


def test_one_channel_is_the_probability() -> None:
    scores = np.array([[[0.0, 0.25, 1.0]]], dtype=np.float32)
    np.testing.assert_array_equal(lesion_probability(scores, "a"), scores[0])


def test_of_several_channels_all_but_the_first_are_lesion() -> None:
    """Softmax, log-softmax and logits of the same probabilities: background 0.2, 0.7."""
    softmax = np.array([[[0.2, 0.7]], [[0.5, 0.2]], [[0.3, 0.1]]], dtype=np.float32)
    for scores in (softmax, np.log(softmax), np.log(softmax) + 4):
        np.testing.assert_allclose(lesion_probability(scores, "a"), [[0.8, 0.3]], rtol=1e-5)


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_no_probability(value: float) -> None:
    with pytest.raises(DataSetError, match=r"scan.png is not a probability"):
        lesion_probability(np.full((1, 2, 2), value, dtype=np.float32), "scan.png")
