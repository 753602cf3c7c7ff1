"""From a data set as it is published to the folders that rmldnn trains on."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from rml_search.dataset import SPLITS, split_folders
from rml_search.errors import DataSetError, OptionError
from rml_search.given_split import read_split
from rml_search.images import Mask, Pixels, decode, read_image, to_display, to_grey, to_mask
from rml_search.interruption import raise_if_interrupted
from rml_search.labelled_images import LabelledImage, SourceFile, find_labelled_images, open_source
from rml_search.near_duplicates import group_near_duplicates, thumbnail
from rml_search.new_folder import check_free, new_folder
from rml_search.splitting import choose_test_images

_REPORT_EVERY = 250  #: images
_MAX_ASPECT_DIFFERENCE = 0.02  #: between a mask and its image; a mask that is only smaller or larger is resized
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_TRAIN, _TEST = SPLITS


@dataclass(frozen=True)
class ClassSplit:
    """How many images of a class went where."""

    name: str  #: empty where the source has no classes
    num_train: int
    num_test: int


@dataclass(frozen=True)
class PrepareSummary:
    """What was prepared."""

    classes: tuple[ClassSplit, ...]
    num_groups: int  #: different pictures, near-duplicates counted once
    num_united_masks: int  #: images whose mask was put together from several files
    num_left_out: int = 0  #: images that a given split does not list
    num_leaking: int = 0  #: test images of which a given split trains on a copy

    @property
    def num_train(self) -> int:
        """Images for training."""
        return sum(split.num_train for split in self.classes)

    @property
    def num_test(self) -> int:
        """Images for testing."""
        return sum(split.num_test for split in self.classes)


@dataclass(frozen=True)
class _Picture:
    """What is remembered of an image between looking at it and writing it."""

    thumbnail: Pixels
    size: tuple[int, int]  #: width and height, upright
    is_upright_png: bool  #: its bytes can be copied as they are


@dataclass(frozen=True)
class _Placed:
    """Where an image goes: ``<split>/inputs/<file_name>``, its mask into ``targets`` under the same name."""

    image: LabelledImage
    picture: _Picture
    file_name: str
    split: str
    group: int


@dataclass(frozen=True)
class SplitChoice:
    """Which images shall test.

    Attributes:
        test_fraction: the share of test images in each class, in (0, 1). Near-duplicates are never on both sides.
        seed: the same seed gives the same split.
        file: a CSV file with the columns ``name`` and ``split``, in the place of fraction and seed: a ``split.csv`` of
            another time, or a published split. Images that it does not list are left out.
    """

    test_fraction: float = 0.1
    seed: int = 0
    file: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise OptionError(f"--test-fraction must be between 0 and 1, not {self.test_fraction}")
        if self.file is not None and not os.path.isfile(self.file):  # noqa: PTH113 (Path's raises for long names)
            raise DataSetError(f"--split: there is no file {self.file}")


def prepare(
    source: Path, out: Path, *, split: SplitChoice | None = None, report: Callable[[str], None]
) -> PrepareSummary:
    """Writes ``out/{train,test}/{inputs,targets}`` and ``out/split.csv`` (name, class, split, group).

    Args:
        source: a folder or zip file with ``CLASS/NAME.png`` beside ``CLASS/NAME_mask.png``, as Kaggle's
            ``Dataset_BUSI_with_GT``; several masks (``_mask_1``, ``_mask_2``) are united, and an image of the class
            ``normal`` may have none. Any format that Pillow reads; a flat folder is one class.
        out: a folder that is empty or not there yet; it is whole or absent at any time.
        report: gets a line now and then.

    Images keep their pixels and masks become 0 or 255; both are PNG, upright, and of one name.

    Raises:
        DataSetError: a source that is empty or incomplete, a file that cannot be read, a split without test images.
        WriteError: a folder that holds files or cannot be written.
    """
    check_free(out)
    if out.resolve().is_relative_to(source.resolve()):
        raise DataSetError(f"{out} is inside {source}: give a folder outside it with --out")
    with open_source(source) as files:
        images = find_labelled_images(files, source)
        split = split or SplitChoice()
        sides = None if split.file is None else _given_sides(images, split.file)
        num_classes = len({image.class_name for image in images})
        report(f"{len(images)} images in {num_classes} {'class' if num_classes == 1 else 'classes'}: reading them")
        pictures = list(_look_at_all(images, report))
        report("Looking for copies of the same picture, which takes a while")
        groups = group_near_duplicates([picture.thumbnail for picture in pictures])
        report(f"{max(groups) + 1} different pictures among {len(images)} images")
        placed = _place(images, pictures, sides or _drawn_sides(images, groups, split), groups)
        with new_folder(out) as folder:
            _write(placed, folder, report)
    return _summarize(placed, num_images=len(images))


def _look_at_all(images: Sequence[LabelledImage], report: Callable[[str], None]) -> Iterator[_Picture]:
    for number, image in enumerate(images, start=1):
        raise_if_interrupted()
        yield _look_at(image.image)
        if number % _REPORT_EVERY == 0:
            report(f"{number} of {len(images)} images read")


def _look_at(file: SourceFile) -> _Picture:
    stored = decode(file.read(), str(file.path))
    upright = ImageOps.exif_transpose(stored)
    is_upright = stored.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return _Picture(thumbnail(to_grey(upright)), upright.size, stored.format == "PNG" and is_upright)


def _given_sides(images: Sequence[LabelledImage], file: Path) -> list[str | None]:
    """Which side a split puts each image on; None for those that it leaves out."""
    names = [name.removesuffix(".png") for name in _file_names(images)]
    given = read_split(file, set(names))
    return [given.get(name) for name in names]


def _drawn_sides(images: Sequence[LabelledImage], groups: Sequence[int], split: SplitChoice) -> list[str | None]:
    """Which side each image is on, copies of a picture on one."""
    in_test = choose_test_images([image.class_name for image in images], groups, split.test_fraction, split.seed)
    if not any(in_test) or all(in_test):
        missing = _TRAIN if all(in_test) else _TEST
        raise DataSetError(
            f"{len(images)} images, {max(groups) + 1} of them different, with a test fraction of {split.test_fraction} "
            f"leave no {missing} images: choose another fraction"
        )
    return [_TEST if chosen else _TRAIN for chosen in in_test]


def _place(
    images: Sequence[LabelledImage], pictures: Sequence[_Picture], sides: Sequence[str | None], groups: Sequence[int]
) -> list[_Placed]:
    everything = zip(images, pictures, _file_names(images), sides, groups, strict=True)
    return [_Placed(image, picture, name, side, group) for image, picture, name, side, group in everything if side]


def _file_names(images: Sequence[LabelledImage]) -> list[str]:
    """Names files after the images, with the class before it where a name occurs in several classes."""
    if len({image.name for image in images}) == len(images):
        return [f"{image.name}.png" for image in images]
    names = [f"{image.class_name.replace('/', '_')}_{image.name}.png" for image in images]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataSetError(f"two images would both be written to {twice}: rename one of them")
    return names


def _write(placed: Sequence[_Placed], folder: Path, report: Callable[[str], None]) -> None:
    for split in SPLITS:
        for part in split_folders(folder, split):
            part.mkdir(parents=True)
    for number, one in enumerate(placed, start=1):
        raise_if_interrupted()
        inputs, targets = split_folders(folder, one.split)
        (inputs / one.file_name).write_bytes(_image_as_png(one.image.image, one.picture))
        (targets / one.file_name).write_bytes(_mask_as_png(one.image, one.picture.size))
        if number % _REPORT_EVERY == 0:
            report(f"{number} of {len(placed)} images written")
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "class", "split", "group"])
        table.writerows([one.file_name, one.image.class_name, one.split, one.group] for one in placed)


def _image_as_png(file: SourceFile, picture: _Picture) -> bytes:
    data = file.read()
    if picture.is_upright_png:
        return data
    image = read_image(data, str(file.path))
    return _as_png(image if image.mode in _PNG_MODES else Image.fromarray(to_display(image)))


def _mask_as_png(image: LabelledImage, size: tuple[int, int]) -> bytes:
    """Unites the masks of an image; without any the whole image is background."""
    width, height = size
    union = np.zeros((height, width), dtype=np.bool_)
    for file in image.masks:
        union |= _read_mask(file, size)
    return _as_png(Image.fromarray(np.where(union, 255, 0).astype(np.uint8)))


def _read_mask(file: SourceFile, size: tuple[int, int]) -> Mask:
    mask = to_mask(read_image(file.read(), str(file.path)))
    (height, width), (image_width, image_height) = mask.shape, size
    if (width, height) == size:
        return mask
    if abs(width * image_height / (height * image_width) - 1) > _MAX_ASPECT_DIFFERENCE:
        raise DataSetError(f"{file.path} is {width}x{height}, its image {image_width}x{image_height}: sizes must match")
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _summarize(placed: Sequence[_Placed], *, num_images: int) -> PrepareSummary:
    counts = Counter((one.image.class_name, one.split) for one in placed)
    classes = sorted({one.image.class_name for one in placed})
    trained = {one.group for one in placed if one.split == _TRAIN}
    return PrepareSummary(
        classes=tuple(ClassSplit(name, counts[name, _TRAIN], counts[name, _TEST]) for name in classes),
        num_groups=len({one.group for one in placed}),
        num_united_masks=sum(len(one.image.masks) > 1 for one in placed),
        num_left_out=num_images - len(placed),
        num_leaking=sum(one.split == _TEST and one.group in trained for one in placed),
    )
