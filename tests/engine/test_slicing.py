"""Slices of an array: published counts, NumPy's own slicing and padding, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rmldnn_contract.data import Slicer
from rmldnn_contract.exit_status import DataError, MemoryExhaustedError, NetworkError, OutputError
from rmldnn_torch import slice_predictions
from rmldnn_torch.distributed import SingleProcess
from rmldnn_torch.slice_predictions import Assembly, assembled_predictions, restore_slice
from rmldnn_torch.slicing import Slices, SliceSet, slice_sets


def one_set(shape: tuple[int, ...], **settings: object) -> SliceSet:
    (cut,) = slice_sets([Slicer.model_validate(settings)], shape)
    return cut


def all_slices(cut: SliceSet, array: NDArray[Any], fill: int = 0) -> list[NDArray[Any]]:
    return [cut.to_slice(array[cut.region(number)], fill) for number in range(len(cut))]


CUBE = np.arange(6 * 5 * 4).reshape(6, 5, 4)


def test_the_numbers_of_samples_that_the_seismic_tutorial_shows() -> None:
    slicer = {"sizes": [64, 64, 256], "strides": [64, 64, 17], "discard_remainders": True}
    assert len(one_set((704, 590, 1006), **slicer)) == 4455
    assert len(one_set((78, 590, 1006), **slicer)) == 405
    assert len(one_set((78, 590, 1006), sizes=[64, 576, 992], discard_remainders=True)) == 1


def test_slices_follow_each_other_with_the_last_dimension_fastest() -> None:
    cut = one_set((6, 5, 4), sizes=[3, 5, 2])
    expected = [CUBE[0:3, :, 0:2], CUBE[0:3, :, 2:4], CUBE[3:6, :, 0:2], CUBE[3:6, :, 2:4]]
    for made, wanted in zip(all_slices(cut, CUBE), expected, strict=True):
        np.testing.assert_array_equal(made, wanted)
    assert Slices([cut]).names[1] == "0:3,0:5,2:4"


def test_a_size_of_one_drops_its_dimension() -> None:
    cut = one_set((6, 5, 4), sizes=[6, 1, 4])
    assert (len(cut), cut.shape) == (5, (6, 4))
    np.testing.assert_array_equal(all_slices(cut, CUBE)[3], CUBE[:, 3, :])


def test_remainders_are_filled_up_or_left_out() -> None:
    row = np.arange(1, 8)
    filled = one_set((7,), sizes=[3])
    assert [part.tolist() for part in all_slices(filled, row)] == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert Slices([filled]).names == ("0:3", "3:6", "6:7")
    assert len(one_set((7,), sizes=[3], discard_remainders=True)) == 2
    overlapping = one_set((7,), sizes=[3], strides=[2])
    assert [part.tolist() for part in all_slices(overlapping, row)] == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    assert all_slices(one_set((8,), sizes=[3], strides=[2]), np.arange(1, 9))[-1].tolist() == [7, 8, 0]
    assert len(one_set((6,), sizes=[2], strides=[4])) == 2
    assert all_slices(one_set((2,), sizes=[3]), np.arange(1, 3), fill=9)[0].tolist() == [1, 2, 9]


def test_padding_stands_on_both_sides_or_brings_to_a_size() -> None:
    array = np.ones((2, 3))
    np.testing.assert_array_equal(
        all_slices(one_set((2, 3), sizes=[2, 3], padding=[1, 0]), array)[0], np.pad(array, [(1, 1), (0, 0)])
    )
    padded = all_slices(one_set((2, 3), sizes=[2, 3], padded_sizes=[4, 6]), array, fill=7)[0]
    np.testing.assert_array_equal(padded, np.pad(array, [(1, 1), (1, 2)], constant_values=7))


def test_the_network_sees_slices_transposed() -> None:
    cut = one_set((6, 5, 4), sizes=[6, 1, 4], padded_sizes=[8, 1, 4], transpose=True)
    assert cut.shape == (4, 8)
    np.testing.assert_array_equal(all_slices(cut, CUBE)[0], np.pad(CUBE[:, 0, :], [(1, 1), (0, 0)]).T)


def test_slicers_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="the slicer 'slice_set_1' has 2 sizes, the array to be cut is 6x5x4"):
        one_set((6, 5, 4), sizes=[2, 2])
    with pytest.raises(DataError, match="'big' finds no slice of 8x5x4 in an array of 6x5x4"):
        one_set((6, 5, 4), name="big", sizes=[8, 5, 4], discard_remainders=True)


def test_slices_beyond_all_memory_are_refused() -> None:
    slicer = Slicer(sizes=(4, 4, 4), padded_sizes=(2**31 - 1,) * 3, name="bricks")
    with pytest.raises(MemoryExhaustedError, match=r"a slice of 2147483647x.* \('bricks'\) does not fit into memory"):
        slice_sets([slicer], (4, 4, 4))


def test_sets_are_counted_through_and_named() -> None:
    slicers = [Slicer(sizes=(1, 32, 32), name="a"), Slicer(sizes=(64, 64, 1))]
    slices = Slices(slice_sets(slicers, (64, 64, 64)))
    assert [len(cut) for cut in slices.sets] == [64 * 4, 64]
    assert [slices.place(index) for index in (0, 255, 256, 319)] == [(0, 0), (0, 255), (1, 0), (1, 63)]
    assert (slices.names[0], slices.names[-1]) == ("a/0:1,0:32,0:32", "slice_set_2/0:64,0:64,63:64")


# --- the way back


def put_together(slices: Slices, array: NDArray[np.float32], path: Path, precision: Any = "single") -> None:
    """What the network that gives its input, and twice its input as a second channel, predicts for all slices."""
    assembly = Assembly(slices, num_channels=2)
    with assembled_predictions(path, precision, assembly, SingleProcess()):
        for index in range(len(slices)):
            which, number = slices.place(index)
            sample = slices.sets[which].to_slice(array[slices.sets[which].region(number)])
            values = torch.from_numpy(np.ascontiguousarray(sample))
            assembly.add(index, torch.stack([values, 2 * values]))


axes = st.integers(1, 3).flatmap(
    lambda dimensions: st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 8), st.integers(0, 3)),
        min_size=dimensions,
        max_size=dimensions,
    )
)


@settings(max_examples=150, deadline=None)
@given(axes, st.booleans(), st.booleans(), st.booleans())
def test_slices_of_any_shape_give_their_array_back(
    tmp_path_factory: pytest.TempPathFactory,
    dimensions: list[tuple[int, int, int, int]],
    are_sizes: bool,
    transpose: bool,
    discard: bool,
) -> None:
    shape, sizes, strides, paddings = (tuple(values) for values in zip(*dimensions, strict=True))
    if all(size == 1 for size in sizes):
        sizes = (2, *sizes[1:])
    if discard and any(size > length for size, length in zip(sizes, shape, strict=True)):
        discard = False
    paddings = tuple(0 if size == 1 else padding for size, padding in zip(sizes, paddings, strict=True))
    amounts = (
        {"padded_sizes": [s + p for s, p in zip(sizes, paddings, strict=True)]} if are_sizes else {"padding": paddings}
    )
    is_flat = sum(size > 1 for size in sizes) == 2
    slicer = {"sizes": sizes, "strides": strides, "transpose": transpose and is_flat, "discard_remainders": discard}
    cut = one_set(shape, **slicer, **amounts)
    array = np.random.default_rng(0).integers(1, 100, shape).astype(np.float32)
    path = tmp_path_factory.mktemp("assembly") / "out.h5"
    put_together(Slices([cut]), array, path)
    covered = np.zeros(shape, dtype=bool)
    for number in range(len(cut)):
        covered[cut.region(number)] = True
    with h5py.File(path) as file:
        for channel, factor in enumerate((1, 2)):
            np.testing.assert_allclose(
                file["slice_set_1"][channel], np.where(covered, factor * array, np.nan), rtol=1e-6
            )
    if not discard and all(stride <= size for stride, size in zip(strides, sizes, strict=True)):
        assert covered.all()


def test_overlapping_predictions_are_averaged(tmp_path: Path) -> None:
    slices = Slices(slice_sets([Slicer(sizes=(2,), strides=(1,))], (3,)))
    assembly = Assembly(slices, num_channels=1)
    with assembled_predictions(tmp_path / "out.h5", "single", assembly, SingleProcess()):
        assembly.add(0, torch.tensor([[1.0, 2.0]]))
        assembly.add(1, torch.tensor([[4.0, 8.0]]))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["slice_set_1"][()].tolist() == [[1.0, 3.0, 8.0]]


def test_an_assembly_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_predictions, "_BYTES_AT_A_TIME", 400)  # a row of both channels has 160 bytes
    put_together(Slices([one_set((6, 5, 4), sizes=[2, 5, 3])]), CUBE.astype(np.float32), tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["slice_set_1"][1], 2 * CUBE)


def test_one_dataset_for_each_set_in_half_precision(tmp_path: Path) -> None:
    slicers = [Slicer(sizes=(1, 5, 4), name="rows"), Slicer(sizes=(6, 1, 4), transpose=True)]
    array = CUBE.astype(np.float32)
    put_together(Slices(slice_sets(slicers, array.shape)), array, tmp_path / "out.h5", "half")
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["rows", "slice_set_2"]
        for dataset in file.values():
            assert (dataset.dtype, dataset.shape) == (np.float16, (2, 6, 5, 4))
            np.testing.assert_array_equal(dataset[0], array)


def test_predictions_of_another_shape_have_no_place() -> None:
    slices = Slices(slice_sets([Slicer(sizes=(4, 4))], (8, 8)))
    with pytest.raises(NetworkError, match="the network gives 2x2 for slices of 4x4"):
        restore_slice(slices, 0, torch.zeros(1, 2, 2))


def test_an_assembly_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assembly = Assembly(Slices(slice_sets([Slicer(sizes=(4,))], (8,))), 1)
    with pytest.raises(OutputError, match="cannot write"):
        assembly.save(tmp_path / "file" / "out.h5", "single", SingleProcess())
