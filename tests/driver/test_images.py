"""Pictures and masks of every mode come out as grey levels and lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from rml_search.errors import DataSetError
from rml_search.images import read_image, to_display, to_grey, to_mask

from ..mask_cases import MASK_CASES

LESION = np.zeros((5, 7), dtype=bool)
LESION[1:3, 2:6] = True


def palette_mask() -> Image.Image:
    image = Image.new("P", LESION.shape[::-1])
    image.putpalette([0, 0, 0, 128, 0, 0])  # dark red, as in the masks of Pascal VOC
    image.putdata(LESION.astype(np.uint8).ravel().tolist())
    return image


def transparent_mask() -> Image.Image:
    """White everywhere, but only the lesion is opaque."""
    white = np.full((*LESION.shape, 4), 255, dtype=np.uint8)
    white[~LESION, 3] = 0
    return Image.fromarray(white)


MASKS = {
    "1": Image.fromarray(LESION),
    "L": Image.fromarray(np.where(LESION, 255, 0).astype(np.uint8)),
    "L, class numbers": Image.fromarray(np.where(LESION, 2, 0).astype(np.uint8)),
    "L, grey border of a JPEG": Image.fromarray(np.where(LESION, 240, 9).astype(np.uint8)),
    "RGB": Image.fromarray(np.where(LESION, 255, 0).astype(np.uint8)).convert("RGB"),
    "RGBA": Image.fromarray(np.where(LESION, 255, 0).astype(np.uint8)).convert("RGBA"),
    "RGBA, transparent": transparent_mask(),
    "P": palette_mask(),
    "I;16": Image.fromarray(np.where(LESION, 65535, 0).astype(np.uint16)),
    "I": Image.fromarray(np.where(LESION, 255, 0).astype(np.int32)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_any_mode(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("mask.tif" if name == "I" else "mask.png")  # PNG has no 32 bits
    MASKS[name].save(path)
    np.testing.assert_array_equal(to_mask(read_image(path, path.name)), LESION)


@pytest.mark.parametrize("name", MASK_CASES)
def test_masks_are_read_by_the_engines_rule(name: str, tmp_path: Path) -> None:
    case = MASK_CASES[name]
    path = tmp_path / f"mask{case.suffix}"
    case.image.save(path)
    mask = to_mask(read_image(path, path.name))
    assert (mask.dtype, mask.ndim) == (np.bool_, 2)
    assert tuple(mask[0]) == case.inside


def test_sixteen_bits_are_scaled_down() -> None:
    grey = to_grey(Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)))
    assert grey.tolist() == [[0, 1, 255]]


def test_grey_is_the_luminance_of_itu_r_601() -> None:
    pure = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8))
    assert to_grey(pure).tolist() == [[76, 150, 29]]


def test_display_keeps_colours_and_no_more() -> None:
    assert to_display(Image.new("RGB", (4, 3))).shape == (3, 4, 3)
    assert to_display(Image.new("L", (4, 3))).shape == (3, 4)
    assert to_display(Image.new("RGBA", (4, 3))).shape == (3, 4)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise to display
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(to_grey(read_image(tmp_path / "turned.png", "turned.png")), upright)


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (200, 200)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(DataSetError, match=r"bomb.png cannot be read .*decompression bomb"):
        read_image(tmp_path / "bomb.png", "bomb.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"none.png does not exist"):
        read_image(tmp_path / "none.png", "none.png")
