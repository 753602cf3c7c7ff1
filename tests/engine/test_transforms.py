"""Transforms done once (against OpenCV by name) and random ones in batches (against them and against numpy)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch.utils._python_dispatch import TorchDispatchMode

from rmldnn_contract.data import RANDOM_GEOMETRY, Patches, Transform
from rmldnn_contract.exit_status import ConfigurationError, DataError, MemoryExhaustedError
from rmldnn_torch.augmentation import draw, patch_masks, warp
from rmldnn_torch.transforms import TransformPlan, class_number_type, plan_transforms, transform_array

NOISE = np.random.default_rng(0).integers(0, 256, (37, 52, 3), dtype=np.uint8)
MASK = (NOISE[..., :1] > 128).astype(np.uint8)


def steps(*documents: Mapping[str, object]) -> tuple[Transform, ...]:
    adapter: TypeAdapter[Transform] = TypeAdapter(Transform)
    return tuple(adapter.validate_json(json.dumps(document)) for document in documents)


def once(image: NDArray[Any], *documents: Mapping[str, object], is_mask: bool = False) -> NDArray[Any]:
    return transform_array(image, plan_transforms(steps(*documents), training=True).once, is_mask=is_mask)


def each_time(
    image: NDArray[np.uint8], numbers: list[list[float]], *documents: Mapping[str, object], nearest: bool = False
) -> NDArray[np.float32]:
    """The first of a batch of one, (height, width, channels)."""
    plan = plan_transforms(steps(*documents), training=True)
    assert not plan.once
    padded = torch.tensor([number + [0.0] * (4 - len(number)) for number in numbers]).reshape(1, len(numbers), 4)
    result = warp(torch.from_numpy(image)[None], plan.each_time, padded, nearest=nearest)
    values: NDArray[np.float32] = result[0].permute(1, 2, 0).numpy()
    return values


# --- the plan


def test_a_list_is_split_at_the_first_random_transform() -> None:
    flip, small, large = {"random_horizontal_flip": 0.5}, {"resize": [8, 8]}, {"resize": [9, 9]}
    plan = plan_transforms(steps(small, flip, large, {"normalize": {"mean": 0.5, "std": 0.25}}), training=True)
    assert plan.once == steps(small)
    assert plan.each_time == steps(flip, large)
    assert plan.random == steps(flip)
    assert plan.scaling == (steps({"normalize": {"mean": 0.5, "std": 0.25}})[0].normalize,)  # type: ignore[union-attr]


def test_an_evaluation_has_no_random_geometry_but_keeps_patches() -> None:
    patches = {"random_patches": {"number": 1, "size": 2}}
    plan = plan_transforms(steps({"jitter_crop": 0.2}, patches, {"resize": [8, 8]}), training=False)
    assert plan == TransformPlan(once=plan.once, patches=(Patches(number=1, size=2),))
    assert plan.once == steps({"resize": [8, 8]})


@pytest.mark.parametrize("key", sorted(RANDOM_GEOMETRY))
def test_random_geometry_is_what_an_evaluation_leaves_out(key: str) -> None:
    step = {key: 0.5}
    assert plan_transforms(steps(step), training=True).random == steps(step)
    assert plan_transforms(steps(step), training=False) == TransformPlan()


# --- on decoded images


@pytest.mark.parametrize("size", [(20, 30), (104, 74), (52, 10)])
def test_images_are_resized_as_opencv_does_bilinearly(size: tuple[int, int]) -> None:
    expected = cv2.resize(NOISE, size, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(once(NOISE, {"resize": list(size)}), expected)


def test_resize_takes_width_before_height() -> None:
    assert once(NOISE, {"resize": [10, 20]}).shape == (20, 10, 3)
    assert once(MASK, {"resize": [10, 20]}, is_mask=True).shape == (20, 10, 1)


def test_masks_take_the_nearest_pixel_by_its_centre() -> None:
    mask = np.arange(6, dtype=np.uint8)[np.newaxis, :, np.newaxis]
    # Two target pixels have their centres at 1.5 and 4.5 of six: in the pixels 1 and 4.
    assert once(mask, {"resize": [2, 1]}, is_mask=True)[0, :, 0].tolist() == [1, 4]
    assert set(np.unique(once(MASK, {"resize": [99, 101]}, is_mask=True))) == {0, 1}


def test_center_crop() -> None:
    np.testing.assert_array_equal(once(NOISE, {"center_crop": [50, 31]}), NOISE[3:34, 1:51])
    with pytest.raises(DataError, match=r"center_crop \[53, 31\] does not fit into 52x37 pixels"):
        once(NOISE, {"center_crop": [53, 31]})


def test_rotate_turns_clockwise() -> None:
    square = NOISE[:36, :36]
    np.testing.assert_array_equal(once(square, {"rotate": 90}), np.rot90(square, -1))
    np.testing.assert_array_equal(once(square, {"rotate": -90}), np.rot90(square, 1))
    np.testing.assert_array_equal(once(MASK[:36, :36], {"rotate": 180}, is_mask=True), np.rot90(MASK[:36, :36], 2))


def test_colours_are_converted_by_opencvs_names() -> None:
    np.testing.assert_array_equal(once(NOISE, {"convert_color": "BGR2RGB"}), NOISE[..., ::-1])
    assert once(NOISE, {"convert_color": "RGB2GRAY"}).shape == (37, 52, 1)
    np.testing.assert_array_equal(once(MASK, {"convert_color": "BGR2RGB"}, is_mask=True), MASK)
    with pytest.raises(ConfigurationError, match="unknown color conversion 'RGB2GREY': did you mean 'RGB2GRAY'"):
        once(NOISE, {"convert_color": "RGB2GREY"})
    with pytest.raises(DataError, match="does not take 1 channels"):
        once(MASK, {"convert_color": "RGB2HSV"})


def test_a_size_that_no_memory_holds() -> None:
    largest = 2**31 - 1
    with pytest.raises(
        MemoryExhaustedError, match=r"resize \[2147483647, 2147483647\] makes an image that does not fit"
    ):
        once(NOISE, {"resize": [largest, largest]})


@pytest.mark.parametrize(
    ("num_classes", "ignore_index", "kind"),
    [
        (256, None, np.uint8),
        (3, 255, np.uint8),
        (257, None, np.int16),
        (3, -1, np.int16),
        (3, 32768, np.int32),
        (2, -(2**24), np.int32),
    ],
)
def test_class_numbers_keep_their_values(num_classes: int, ignore_index: int | None, kind: type) -> None:
    numbers = np.arange(35 * 35, dtype=np.int64).reshape(35, 35, 1) % num_classes
    if ignore_index is not None:
        numbers[::3] = ignore_index
    mask = numbers.astype(class_number_type(num_classes, ignore_index))
    assert mask.dtype == kind
    moved = once(mask, {"rotate": 90}, {"resize": [70, 105]}, is_mask=True)
    np.testing.assert_array_equal(moved, np.rot90(numbers, -1).repeat(3, axis=0).repeat(2, axis=1))


def test_numbers_that_opencv_does_not_resize() -> None:
    with pytest.raises(DataError, match=r"resize \[8, 8\] does not take 1 channels of bool"):
        once(MASK.astype(np.bool_), {"resize": [8, 8]})


# --- in batches


def test_flips() -> None:
    left_right, top_bottom = {"random_horizontal_flip": 0.5}, {"random_vertical_flip": 0.5}
    np.testing.assert_allclose(each_time(NOISE, [[0.49]], left_right), NOISE[:, ::-1], atol=0.05)
    np.testing.assert_allclose(each_time(NOISE, [[0.5]], left_right), NOISE, atol=0.05)
    np.testing.assert_allclose(each_time(NOISE, [[0.1]], top_bottom), NOISE[::-1], atol=0.05)
    np.testing.assert_array_equal(
        each_time(MASK, [[0.1], [0.1]], left_right, top_bottom, nearest=True), MASK[::-1, ::-1]
    )


def test_jitter_crop_cuts_each_side_by_itself() -> None:
    # Of 52 x 37 pixels with 0.5: left int(0.5 * 0.4 * 26) = 5, right 0, top int(0.5 * 0.8 * 18.5) = 7, bottom 1.
    cropped = each_time(NOISE, [[0.4, 0.0, 0.8, 0.2]], {"jitter_crop": 0.5})
    np.testing.assert_allclose(cropped, NOISE[7:36, 5:], atol=0.05)


def test_a_crop_before_a_resize_is_what_opencv_makes_of_the_cropped_image() -> None:
    result = each_time(NOISE, [[0.4, 0.0, 0.8, 0.2]], {"jitter_crop": 0.5}, {"resize": [40, 40]})
    expected = cv2.resize(NOISE[7:36, 5:].astype(np.float32), (40, 40), interpolation=cv2.INTER_LINEAR)
    # At the cut edges the batch still sees the pixels beyond them, which OpenCV does not have.
    np.testing.assert_allclose(result[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.1)


def test_random_zoom_enlarges_the_middle() -> None:
    image = NOISE[:32, :32]
    zoomed = each_time(image, [[0.5]], {"random_zoom": 0.5})
    # Half of 0.5 cuts a quarter of each axis: rows 4 to 28 fill the image.
    expected = cv2.resize(image[4:28, 4:28].astype(np.float32), (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(zoomed[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.1)


@pytest.mark.parametrize(("number", "degrees"), [(0.75, 30.0), (0.25, -30.0), (0.5, 0.0)])
def test_random_rotate_is_rotate_by_a_random_angle(number: float, degrees: float) -> None:
    # A black frame, so that nothing is cut off: how the outer edge blends with black is not the same.
    framed = np.asarray(cv2.GaussianBlur(np.pad(NOISE, ((30, 30), (24, 24), (0, 0))), (0, 0), 2), dtype=np.uint8)
    result = each_time(framed, [[number]], {"random_rotate": 60})
    difference = np.abs(result - once(framed, {"rotate": degrees}))
    assert difference.max() < 4
    assert difference.mean() < 0.5


def test_what_a_rotation_brings_in_is_background() -> None:
    ones = np.ones((20, 20, 1), dtype=np.uint8)
    turned = each_time(ones, [[1.0]], {"random_rotate": 45}, nearest=True)
    assert turned[0, 0, 0] == 0
    assert turned[10, 10, 0] == 1
    assert set(np.unique(turned)) == {0.0, 1.0}


def test_inputs_and_targets_move_together() -> None:
    plan = plan_transforms(
        steps({"random_rotate": 30}, {"random_zoom": 0.3}, {"random_horizontal_flip": 0.5}), training=True
    )
    blob = np.zeros((4, 48, 48, 1), dtype=np.uint8)
    blob[:, 10:25, 20:40] = 1
    numbers = draw(plan.random, 4, torch.Generator().manual_seed(0))
    images = warp(torch.from_numpy(blob * 255), plan.each_time, numbers, nearest=False)
    masks = warp(torch.from_numpy(blob), plan.each_time, numbers, nearest=True)
    assert ((images >= 127.5).float() != masks).float().mean() < 0.01
    assert not torch.equal(masks[0], masks[1])


def test_images_of_different_sizes_can_be_cropped_to_one() -> None:
    images = [torch.from_numpy(NOISE), torch.from_numpy(NOISE[:30, :31].copy())]
    plan = plan_transforms(steps({"jitter_crop": 0.2}, {"resize": [16, 12]}), training=True)
    assert warp(images, plan.each_time, torch.rand(2, 1, 4), nearest=False).shape == (2, 3, 12, 16)
    with pytest.raises(DataError, match='end these with "resize"'):
        warp(images, plan.each_time[:1], torch.rand(2, 1, 4), nearest=False)


geometry = st.one_of(
    st.fixed_dictionaries({"resize": st.tuples(st.integers(1, 40), st.integers(1, 40)).map(list)}),
    st.fixed_dictionaries({"jitter_crop": st.floats(0, 0.99)}),
    st.fixed_dictionaries({"random_horizontal_flip": st.floats(0, 1)}),
    st.fixed_dictionaries({"random_zoom": st.floats(0, 0.99)}),
    st.fixed_dictionaries({"random_rotate": st.floats(0, 180)}),
    st.fixed_dictionaries({"rotate": st.floats(-180, 180)}),
)


@given(st.lists(geometry, max_size=4), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
def test_any_geometry_ends_at_the_size_of_its_last_resize(
    documents: list[Mapping[str, object]], height: int, width: int, seed: int
) -> None:
    transforms = steps({"random_vertical_flip": 0.5}, *documents, {"resize": [7, 5]})
    plan = plan_transforms(transforms, training=True)
    images = torch.randint(0, 256, (2, height, width, 1), dtype=torch.uint8)
    numbers = draw(plan.random, 2, torch.Generator().manual_seed(seed))
    result = warp(images, plan.each_time, numbers, nearest=False)
    assert result.shape == (2, 1, 5, 7)
    assert 0 <= result.min() <= result.max() <= 255.01


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**32))
def test_a_blanked_patch_is_a_square_within_the_image(height: int, width: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = patch_masks(torch.ones(3, 2, height, width), Patches(number=1, size=size), generator)
    assert masks.shape == (3, 1, height, width)
    for mask in masks[:, 0]:
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert sorted(set(rows.tolist())) == list(range(int(rows.min()), int(rows.min()) + min(size, height)))
        assert sorted(set(columns.tolist())) == list(range(int(columns.min()), int(columns.min()) + min(size, width)))
        assert len(rows) == min(size, height) * min(size, width)


def test_patches_differ_from_image_to_image() -> None:
    masks = patch_masks(torch.ones(8, 1, 64, 64), Patches(number=3, size=8), torch.Generator().manual_seed(0))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 8
    assert (masks.flatten(1).sum(1) <= 3 * 64).all()


class Copies(TorchDispatchMode):
    """Notes of each copy to another device whether this machine goes on meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on: list[bool] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), settings: Any = None) -> object:
        settings = settings or {}
        if operation is torch.ops.aten._to_copy.default and str(settings.get("device", "cpu")) != "cpu":
            self.go_on.append(settings.get("non_blocking", False))
        return operation(*arguments, **settings)


def test_no_batch_waits_for_what_the_device_has_still_to_do() -> None:
    """On torch's meta device, which stands for a GPU here."""
    images = torch.empty(2, 8, 8, 3, dtype=torch.uint8, device="meta")
    plan = plan_transforms(steps({"random_rotate": 20}), training=True)
    numbers = draw(plan.random, 2, torch.Generator().manual_seed(0))
    with Copies() as copies:
        warped = warp(images, plan.each_time, numbers, nearest=False)
        patch_masks(warped, Patches(number=2, size=3), torch.Generator().manual_seed(0))
    assert copies.go_on == [True, True]
