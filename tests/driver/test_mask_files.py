"""Masks for other programs: their names, sizes and values, and that nothing is overwritten."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from PIL import Image

from rml_search.errors import DataSetError, OptionError, WriteError
from rml_search.inference import InferenceResult
from rml_search.mask_files import check_masks, write_masks
from rmldnn_contract.config import Configuration


def configuration(**data):
    network = {"layers": "layers.json", "data": {"type": "images", "test_input_path": "./images/", **data}}
    return Configuration.model_validate({"neural_network": network})


@pytest.fixture
def result(workspace):
    """Images of 24 x 32 and, in a subfolder, of 16 x 8; the upper and the left half of each is predicted."""
    inputs = workspace.root / "images"
    (inputs / "sub").mkdir(parents=True)
    Image.new("L", (24, 32)).save(inputs / "a.png")
    Image.new("RGB", (16, 8)).save(inputs / "sub" / "b.jpg")
    upper, left = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.float32)
    upper[0, :4] = 1
    left[0, :, :4] = 1
    with h5py.File(workspace.root / "output_1.h5", "w") as file:
        file["a.png"], file["sub/b"] = upper, left
    return InferenceResult(None, None, (workspace.root / "output_1.h5",), configuration())


def test_masks_have_the_sizes_and_names_of_their_images(workspace, result):
    out = workspace.root / "new" / "masks"
    assert write_masks(result, workspace, out) == 2
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["a.png", "sub/b.png"]
    with Image.open(out / "a.png") as a, Image.open(out / "sub" / "b.png") as b:
        assert (a.mode, b.mode, a.format) == ("L", "L", "PNG")
        expected_a, expected_b = np.zeros((32, 24)), np.zeros((8, 16))
        expected_a[:16], expected_b[:, :8] = 255, 255
        np.testing.assert_array_equal(np.asarray(a), expected_a)
        np.testing.assert_array_equal(np.asarray(b), expected_b)


def test_an_image_that_a_camera_has_turned(workspace, result):
    """The mask lies over the image as programs show it: 32 wide and 24 high after a quarter turn."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (24, 32)).save(workspace.root / "images" / "a.png", exif=turned)
    write_masks(result, workspace, workspace.root / "masks")
    with Image.open(workspace.root / "masks" / "a.png") as mask:
        assert mask.size == (32, 24)


def test_nothing_is_overwritten(workspace, result):
    out = workspace.root / "masks"
    out.mkdir()
    (out / "a.png").write_text("precious")
    for write in (lambda: check_masks(result.configuration, out), lambda: write_masks(result, workspace, out)):
        with pytest.raises(WriteError, match="is not empty: use another folder"):
            write()
    assert (out / "a.png").read_text() == "precious"


def test_all_or_nothing(workspace, result):
    with h5py.File(result.predictions[0], "a") as file:
        file["sub/b"][...] = 7
    with pytest.raises(DataSetError, match=r"sub/b.jpg is not a probability"):
        write_masks(result, workspace, workspace.root / "masks")
    assert not (workspace.root / "masks").exists()


def test_two_images_with_one_mask(workspace, result):
    Image.new("L", (8, 8)).save(workspace.root / "images" / "a.tif")
    with pytest.raises(DataSetError, match=r"two images in .* would get the mask a\.png"):
        write_masks(result, workspace, workspace.root / "masks")


def test_what_cannot_be_exported_is_told_before_the_inference(workspace):
    out = workspace.root / "masks"
    with pytest.raises(DataSetError, match="rotate moves the pixels"):
        check_masks(configuration(transforms=[{"rotate": 30}]), out)
    with pytest.raises(OptionError, match="test data of this configuration is not images"):
        check_masks(configuration(type="numpy"), out)
