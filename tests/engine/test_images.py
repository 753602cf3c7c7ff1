"""Image folders, pairs and pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rmldnn_contract.exit_status import DataError, MemoryExhaustedError
from rmldnn_torch import images
from rmldnn_torch.arrays import list_arrays
from rmldnn_torch.images import list_images, read_binary_mask, read_class_mask, read_image
from rmldnn_torch.sample_files import SampleFile, pair

from ..mask_cases import MASK_CASES

GRADIENT = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def files(*names: str) -> tuple[SampleFile, ...]:
    return tuple(SampleFile(Path("folder", name), name) for name in sorted(names))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


# --- folders


def test_images_are_listed_below_the_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a (10).JPG", "a (2).jpg", "sub/c.tiff", ".hidden.png", ".cache/d.png", "notes.txt", "e"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [file.name for file in list_images(tmp_path)] == ["a (10).JPG", "a (2).jpg", "b.png", "sub/c.tiff"]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*none"):
        list_images(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="holds no images"):
        list_images(tmp_path)


def test_a_name_that_no_folder_can_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder .*xxx: "):
        list_images(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match=r"folder .*xxx: "):
        list_arrays(tmp_path / ("x" * 300), "numpy")


def test_pairs_have_equal_names_but_for_the_suffix() -> None:
    targets = pair(files("a.jpg", "sub/a.jpg", "b.jpg"), files("b.png", "a.png", "sub/a.tif"))
    assert [target.name for target in targets] == ["a.png", "b.png", "sub/a.tif"]


def test_an_addition_that_all_targets_have_is_no_hindrance() -> None:
    # Sorted, "a_b_mask" comes before "a_mask": the order alone would pair them wrongly.
    targets = pair(files("a.png", "a_b.png"), files("a_mask.png", "a_b_mask.png"))
    assert [target.name for target in targets] == ["a_mask.png", "a_b_mask.png"]
    targets = pair(files("image_1.png", "image_2.png"), files("label_1.png", "label_2.png"))
    assert [target.name for target in targets] == ["label_1.png", "label_2.png"]


@given(
    st.sets(st.text("ab_1", max_size=4), min_size=1, max_size=6),
    st.text("xab_", max_size=3),
    st.text("xab_", max_size=3),
)
def test_pairs_are_found_whatever_all_targets_add(stems: set[str], before: str, behind: str) -> None:
    inputs = files(*(f"s{stem}.png" for stem in stems))
    targets = files(*(f"{before}s{stem}{behind}.png" for stem in stems))
    if {file.stem for file in inputs} == {file.stem for file in targets}:
        return  # then equal names win
    assert [target.stem for target in pair(inputs, targets)] == [f"{before}{file.stem}{behind}" for file in inputs]


def test_the_first_one_without_a_partner_is_named() -> None:
    with pytest.raises(DataError, match=r"folder/b\.png has no target: there are 3 inputs and 2 targets"):
        pair(files("a.png", "b.png", "c.png"), files("a.png", "c.png"))
    with pytest.raises(DataError, match=r"the target folder/d\.png has no input"):
        pair(files("a.png", "b.png"), files("a.png", "b.png", "d.png"))
    with pytest.raises(DataError, match=r"folder/b\.png has no target"):
        pair(files("a.png", "b.png"), files("a.png", "d.png"))


def test_two_files_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(DataError, match=r"a\.jpg and folder/a\.png have the same name"):
        pair(files("a.png", "a.jpg"), files("a.png"))


# --- pixels


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "pgm"])
def test_gray_images_of_lossless_formats(tmp_path: Path, suffix: str) -> None:
    path = saved(
        tmp_path / f"a.{suffix}", Image.fromarray(GRADIENT), **({"lossless": True} if suffix == "webp" else {})
    )
    np.testing.assert_array_equal(read_image(path, gray=True)[..., 0], GRADIENT)
    np.testing.assert_array_equal(read_image(path, gray=False), np.stack([GRADIENT] * 3, axis=-1))


def test_gray_weighs_colours_as_itu_r_601_does(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (2, 2), (200, 100, 50)))
    assert read_image(path, gray=True)[0, 0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_sixteen_bits_are_scaled_to_the_range_of_eight(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    assert read_image(path, gray=True)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read_image(path, gray=False).shape == (1, 4, 3)


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = saved(tmp_path / "a.png", image)
    assert read_image(path, gray=False).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparent_images_are_laid_on_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (255, 255, 255, 0))
    path = saved(tmp_path / "a.png", image)
    assert read_image(path, gray=False).tolist() == [[[200, 100, 50], [0, 0, 0]]]


def test_images_are_turned_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT), exif=exif)
    np.testing.assert_array_equal(read_image(path, gray=True)[..., 0], np.rot90(GRADIENT, -1))


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.new("F", (2, 2)))
    with pytest.raises(DataError, match=r"a\.tif has floating-point pixels"):
        read_image(path, gray=True)


def test_colours_of_other_kinds_become_red_green_and_blue(tmp_path: Path) -> None:
    cyan = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (255, 0, 0, 0)))
    np.testing.assert_allclose(read_image(cyan, gray=False)[0, 0], [0, 255, 255], atol=3)
    half = saved(tmp_path / "b.png", Image.new("LA", (1, 1), (200, 128)))
    assert read_image(half, gray=False).tolist() == [[[100, 100, 100]]]  # 200 * 128 / 255
    deep = tmp_path / "c.png"  # 16 bits a channel, which Pillow cannot write
    cv2.imwrite(str(deep), np.array([[[0, 32896, 65535]]], dtype=np.uint16))
    assert read_image(deep, gray=False).tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiffs(tmp_path: Path, compression: str) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(GRADIENT), compression=compression)
    np.testing.assert_array_equal(read_image(path, gray=True)[..., 0], GRADIENT)


def test_an_image_that_claims_to_be_huge_is_named(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + content + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with pytest.raises(DataError, match=r"a\.png has 100000x100000 pixels, more than 268,435,456: make it smaller"):
        read_image(tmp_path / "a.png", gray=False)


def test_an_image_that_does_not_fit_into_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT))
    with pytest.raises(MemoryExhaustedError, match=r"the image .*a\.png does not fit into memory"):
        read_image(path, gray=False)


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = saved(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    )
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "text.png", "empty.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name, gray=True)


@given(st.data())
def test_any_damage_is_an_image_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "gif", "bmp"]))
    path = saved(folder / f"a.{suffix}", Image.fromarray(GRADIENT))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    # A damaged size is believed up to the limit, and with the real one that takes a second of zeros.
    with patch.object(images, "MAX_PIXELS", 2**16):
        outcome = outcome_of(path)
    assert outcome == "3" or (path.name in outcome and "\n" not in outcome)


def outcome_of(path: Path) -> str:
    """The number of an image's dimensions, or what is wrong with it."""
    try:
        return str(read_image(path, gray=False).ndim)
    except DataError as error:
        return str(error)


# --- masks


def test_masks_are_turned_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    inside = (GRADIENT > 100).astype(np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(inside * 255), exif=exif)
    np.testing.assert_array_equal(read_binary_mask(path)[..., 0], np.rot90(inside, 2))
    np.testing.assert_array_equal(read_class_mask(path, 2)[..., 0], np.rot90(inside, 2))


@pytest.mark.parametrize("name", MASK_CASES)
def test_masks_of_one_class(name: str, tmp_path: Path) -> None:
    case = MASK_CASES[name]
    path = saved(tmp_path / f"mask{case.suffix}", case.image)
    mask = read_binary_mask(path)
    assert (mask.dtype, mask.ndim) == (np.uint8, 3)
    assert tuple(mask[0, :, 0]) == case.inside


def test_masks_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.tif", Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))
    with pytest.raises(DataError, match=r"mask\.tif has values beyond 16 bits"):
        read_binary_mask(path)


def test_one_bit_masks(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", Image.fromarray(np.array([[False, True]])))
    assert read_class_mask(path, 3)[0, :, 0].tolist() == [0, 1]


def test_class_numbers_are_grey_values_or_palette_indices(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    palette = gray.copy()
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    deep = Image.fromarray(np.array([[0, 1, 2]], dtype=np.int32))
    for image in (gray, palette, gray.convert("RGB"), deep):
        assert read_class_mask(saved(tmp_path / "mask.tif", image), 3)[0, :, 0].tolist() == [0, 1, 2]


def test_values_beyond_the_classes_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", Image.fromarray(np.array([[0, 1, 2, 255]], dtype=np.uint8)))
    with pytest.raises(DataError, match=r"value 255 in the mask .*mask\.png: the network has classes 0 to 2"):
        read_class_mask(path, 3)
    assert read_class_mask(path, 3, ignore_index=255)[0, :, 0].tolist() == [0, 1, 2, 255]


def test_class_numbers_beyond_eight_bits(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 299, 65535]], dtype=np.uint16)
    path = saved(tmp_path / "mask.png", Image.fromarray(numbers))
    np.testing.assert_array_equal(read_class_mask(path, 300, ignore_index=65535)[..., 0], numbers)
    with pytest.raises(DataError, match="value 299 in the mask"):
        read_class_mask(path, 44, ignore_index=65535)  # 299 is 43 in the lowest eight bits
    with pytest.raises(DataError, match="value 65535 in the mask"):
        read_class_mask(path, 300)


def test_with_two_classes_black_and_white_will_do(tmp_path: Path) -> None:
    for levels in ((0, 255), (9, 240)):
        path = saved(tmp_path / "mask.png", Image.fromarray(np.array([levels], dtype=np.uint8)))
        assert read_class_mask(path, 2)[0, :, 0].tolist() == [0, 1]


def test_coloured_masks_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", Image.new("RGB", (2, 1), (1, 2, 3)))
    with pytest.raises(DataError, match=r"mask\.png has a mask in colours"):
        read_class_mask(path, 3)
