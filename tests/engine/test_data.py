"""Loaders: which samples make a batch, in which order, and as which tensors."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from rmldnn_contract.data import Data, Transform
from rmldnn_contract.exit_status import ConfigurationError, DataError, MemoryExhaustedError
from rmldnn_torch import sources
from rmldnn_torch.augmentation import Samples
from rmldnn_torch.data import DataSettings, Loader, Share, TargetKind
from rmldnn_torch.datasets import check_data_is_supported, open_test_data, open_training_data
from rmldnn_torch.log import Log
from rmldnn_torch.transforms import TransformPlan, plan_transforms


class Numbers:
    """Samples whose only pixel is their number; a dataset in memory, with the number as target too."""

    kind = "numbers"
    target_kind = TargetKind.VALUES
    is_in_memory = True
    slices = None

    def __init__(self, count: int) -> None:
        self.names = [f"sample {number}" for number in range(count)]
        self.group_sizes = [count]

    def fetch(self, indices: Sequence[int]) -> tuple[Samples, Samples | None]:
        pixels = torch.tensor(indices, dtype=torch.uint8).reshape(-1, 1, 1, 1)
        return pixels, pixels


class Slow(Numbers):
    """The same, read as it is needed; keeps the names of the threads that read."""

    is_in_memory = False

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.threads: set[str] = set()

    def fetch(self, indices: Sequence[int]) -> tuple[Samples, Samples | None]:
        self.threads.add(threading.current_thread().name)
        if 7 in indices:
            raise DataError("sample 7 is broken")
        return super().fetch(indices)


def plan(*documents: dict[str, object], training: bool = True) -> TransformPlan:
    adapter: TypeAdapter[Transform] = TypeAdapter(Transform)
    return plan_transforms([adapter.validate_json(json.dumps(d)) for d in documents], training=training)


def loader(
    count: int = 10, batch_size: int = 4, shuffle: bool = True, rank: int = 0, num_processes: int = 1, seed: int = 0
) -> Loader:
    settings = DataSettings(num_classes=1, seed=seed, share=Share(rank, num_processes))
    return Loader(Numbers(count), TransformPlan(), TransformPlan(), batch_size, settings, shuffle)


def numbers(values: Tensor) -> list[int]:
    return [round(value * 255) for value in values.flatten().tolist()]


def epoch_of(loader: Loader, epoch: int) -> list[list[int]]:
    return [numbers(batch.inputs) for batch in loader.batches(epoch)]


# --- order


def test_every_sample_comes_once_and_the_last_batch_may_be_smaller() -> None:
    batches = epoch_of(loader(), 1)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain.from_iterable(batches)) == list(range(10))
    assert len(loader()) == 3


def test_the_order_differs_from_epoch_to_epoch_and_with_the_seed_but_not_from_run_to_run() -> None:
    assert epoch_of(loader(50), 1) == epoch_of(loader(50), 1)
    assert epoch_of(loader(50), 1) != epoch_of(loader(50), 2)
    assert epoch_of(loader(50), 1) != epoch_of(loader(50, seed=1), 1)


def test_a_test_keeps_the_order_of_the_names() -> None:
    assert epoch_of(loader(shuffle=False), 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_names_inputs_and_targets_belong_together() -> None:
    for batch in loader().batches(1):
        assert batch.targets is not None
        assert [f"sample {number}" for number in numbers(batch.inputs)] == list(batch.names)
        assert torch.equal(batch.inputs, batch.targets)


@pytest.mark.parametrize(("count", "batch_size", "num_processes"), [(10, 4, 2), (10, 3, 2), (9, 8, 4), (1, 4, 3)])
def test_processes_share_each_batch(count: int, batch_size: int, num_processes: int) -> None:
    loaders = [loader(count, batch_size, rank=rank, num_processes=num_processes) for rank in range(num_processes)]
    epochs = [epoch_of(part, 1) for part in loaders]
    assert {len(epoch) for epoch in epochs} == {len(loaders[0])}
    assert all(len(batch) <= -(-batch_size // num_processes) for epoch in epochs for batch in epoch)
    together = [list(chain.from_iterable(parts)) for parts in zip(*epochs, strict=True)]
    if batch_size % num_processes == 0:
        assert together == epoch_of(loader(count, batch_size), 1)
    assert sorted(chain.from_iterable(together)) == list(range(count))


# --- tensors


def test_pixels_become_fractions_and_normalize_comes_last() -> None:
    settings = DataSettings(num_classes=1)
    scaled = Loader(Numbers(3), plan({"normalize": {"mean": 0.5, "std": [0.25]}}), TransformPlan(), 3, settings)
    (batch,) = scaled.batches(1)
    assert batch.targets is not None
    torch.testing.assert_close(batch.inputs.flatten(), (torch.arange(3) / 255 - 0.5) / 0.25)
    torch.testing.assert_close(batch.targets.flatten(), torch.arange(3) / 255)
    wrong = Loader(Numbers(3), plan({"normalize": {"mean": [0.5, 0.5], "std": 1}}), TransformPlan(), 3, settings)
    with pytest.raises(ConfigurationError, match="normalize has 2 numbers in mean, the images have 1 channels"):
        list(wrong.batches(1))


def test_random_geometry_must_be_the_same_for_targets() -> None:
    with pytest.raises(ConfigurationError, match="list the same jitter_crop"):
        Loader(Numbers(3), plan({"random_rotate": 10}), TransformPlan(), 3, DataSettings(num_classes=1))


def test_samples_are_read_ahead_in_another_thread() -> None:
    dataset = Slow(6)
    ahead = Loader(dataset, TransformPlan(), TransformPlan(), 2, DataSettings(num_classes=1))
    assert epoch_of(ahead, 1) == [[0, 1], [2, 3], [4, 5]]
    assert threading.current_thread().name not in dataset.threads
    broken = Loader(Slow(9), TransformPlan(), TransformPlan(), 2, DataSettings(num_classes=1))
    with pytest.raises(DataError, match="sample 7 is broken"):
        epoch_of(broken, 1)


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = iter(Loader(Slow(6), TransformPlan(), TransformPlan(), 2, DataSettings(num_classes=1)).batches(1))
    next(batches)
    del batches
    assert threading.active_count() == before


# --- image folders


def data_of(lesions: Path, **changes: object) -> Data:
    document: dict[str, object] = {
        "type": "images",
        "input_path": str(lesions / "train" / "inputs"),
        "target_path": str(lesions / "train" / "targets"),
        "test_input_path": str(lesions / "test" / "inputs"),
        "test_target_path": str(lesions / "test" / "targets"),
        "batch_size": 8,
        "grayscale": True,
        "target_is_mask": True,
    }
    return Data.model_validate(document | changes)


SETTINGS = DataSettings(num_classes=1)


def opened(data: Data, settings: DataSettings = SETTINGS, training: bool = True) -> Loader:
    result = (open_training_data if training else open_test_data)(data, settings, Log(silent=True))
    assert result is not None
    return result


@pytest.mark.parametrize("transforms", [[], [{"resize": [20, 24]}], [{"random_rotate": 20}, {"resize": [20, 24]}]])
def test_preloaded_images_are_those_that_are_read_as_needed(lesions: Path, transforms: list[object]) -> None:
    kept, read = (
        list(opened(data_of(lesions, preload=preload, transforms=transforms)).batches(2)) for preload in (True, False)
    )
    for first, second in zip(kept, read, strict=True):
        assert first.targets is not None
        assert second.targets is not None
        assert first.names == second.names
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.targets, second.targets)


def test_a_sample_is_its_file(lesions: Path) -> None:
    (batch,) = opened(data_of(lesions, test_batch_size=8), training=False).batches(0)
    assert batch.targets is not None
    pixels = np.asarray(Image.open(lesions / "test" / "inputs" / batch.names[3]))
    mask = np.asarray(Image.open(lesions / "test" / "targets" / batch.names[3]))
    assert batch.names[:3] == ("scan (0).png", "scan (1).png", "scan (2).png")
    np.testing.assert_allclose(batch.inputs[3, 0], pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(batch.targets[3, 0], mask == 255)


def test_targets_as_the_document_says(lesions: Path) -> None:
    def targets(data: Data, num_classes: int = 1) -> Tensor:
        (batch,) = opened(data, DataSettings(num_classes=num_classes), training=False).batches(0)
        assert batch.targets is not None
        return batch.targets

    classes = targets(data_of(lesions), num_classes=2)
    assert (classes.shape, classes.dtype) == ((8, 32, 32), torch.int64)
    assert set(classes.flatten().tolist()) == {0, 1}
    values = targets(data_of(lesions, target_is_mask=False, transforms=[{"resize": [48, 48]}]))
    assert (values.shape, values.dtype) == ((8, 1, 48, 48), torch.float32)
    assert len(set(values.flatten().tolist())) > 2  # edges between 0 and 1: bilinear, not nearest
    assert targets(data_of(lesions, target_is_mask=False, target_grayscale=False)).shape == (8, 3, 32, 32)
    masks = targets(data_of(lesions, transforms=[{"resize": [48, 48]}, {"normalize": {"mean": 0.5, "std": 0.5}}]))
    assert set(masks.flatten().tolist()) == {0.0, 1.0}


def test_without_targets_there_are_none(lesions: Path) -> None:
    batches = list(opened(data_of(lesions, test_target_path=None), training=False).batches(0))
    assert [batch.targets for batch in batches] == [None]


def test_colour_images_are_channels_last_in_memory(lesions: Path) -> None:
    (batch,) = opened(data_of(lesions, grayscale=False), training=False).batches(0)
    assert batch.inputs.shape == (8, 3, 32, 32)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("preload", [True, False])
def test_images_of_different_sizes_need_a_resize(tmp_path: Path, preload: bool) -> None:
    for kind in ("inputs", "targets"):
        (tmp_path / kind).mkdir()
        for name, size in (("a.png", (10, 12)), ("b.png", (14, 12))):
            Image.new("L", size).save(tmp_path / kind / name)
    document = {"type": "images", "test_input_path": str(tmp_path / "inputs"), "preload": preload}
    with pytest.raises(DataError, match=r"\(10x12 and 14x12 pixels\): add .*resize"):
        list(opened(Data.model_validate(document), training=False).batches(0))
    (batch,) = opened(Data.model_validate({**document, "transforms": [{"resize": [8, 8]}]}), training=False).batches(0)
    assert batch.inputs.shape == (2, 3, 8, 8)


@pytest.mark.parametrize("preload", [True, False])
def test_an_image_that_cannot_be_read_is_named(lesions: Path, tmp_path: Path, preload: bool) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    document = {"type": "images", "test_input_path": str(tmp_path), "preload": preload}
    with pytest.raises(DataError, match=r"b\.png is no image that can be read"):
        list(opened(Data.model_validate(document), training=False).batches(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "labels"}, "labels are targets: set data.input_type to images"),
        ({"target_type": "labels"}, "data.target_path is given, but labels come from the folders of the inputs"),
        ({"target_type": "numpy", "slicers": [{"sizes": [8, 8]}]}, "data.slicers cut arrays"),
        ({"training_tag": "train"}, "data.training_tag tells where labels are"),
        ({"target_path": None}, "data.target_path is missing"),
    ],
)
def test_what_does_not_go_together_is_refused(lesions: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_data_is_supported(data_of(lesions, **changes))


def test_samples_that_cannot_all_be_kept_in_memory(lesions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "gather", lambda *_: torch.empty(2**50))
    with pytest.raises(MemoryExhaustedError, match=r"the 24 samples in and below .* do not fit into memory together"):
        opened(data_of(lesions, preload=True))


# --- inpainting


def test_patches_are_taken_out_of_inputs_and_left_of_targets(lesions: Path) -> None:
    patches, scaling = {"random_patches": {"number": 3, "size": 6}}, {"normalize": {"mean": 0.5, "std": 0.5}}
    folder = str(lesions / "train" / "inputs")

    def batch_of(**transforms: object) -> tuple[Tensor, Tensor]:
        data = data_of(lesions, target_path=folder, target_is_mask=False, batch_size=24, **transforms)
        (batch,) = opened(data).batches(1)
        assert batch.targets is not None
        return batch.inputs, batch.targets

    _, whole = batch_of()
    inputs, targets = batch_of(transforms=[patches])
    missing = inputs != whole
    assert torch.equal(inputs + targets, whole)
    assert 0 < missing.float().mean() < 3 * 36 / 32**2
    assert torch.equal(targets[missing], whole[missing])
    assert not targets[~missing].any()
    scaled = batch_of(transforms=[patches, scaling])
    torch.testing.assert_close(scaled[0], (inputs - 0.5) / 0.5)
    torch.testing.assert_close(scaled[1], (targets - 0.5) / 0.5)
    only_inputs = batch_of(input_transforms=[patches])
    assert torch.equal(only_inputs[0], inputs)
    assert torch.equal(only_inputs[1], whole)
    with pytest.raises(ConfigurationError, match="inputs and targets need one size"):
        batch_of(input_transforms=[patches], target_transforms=[{"resize": [16, 16]}, patches])
