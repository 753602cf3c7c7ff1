"""Pictures and the masks drawn for them, as people share them: ``CLASS/NAME.png`` beside ``CLASS/NAME_mask.png``.

The source is a folder or a zip file. A zip file is read where it lies: nothing is unpacked, so no name in it can
lead outside a folder, and what is read at once is bounded.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from rml_search.dataset import is_visible, name_some
from rml_search.errors import DataSetError

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MASK_NAME = re.compile(r"(?P<image>.+)_mask(?:_?\d+)?", re.IGNORECASE)
_CLASS_WITHOUT_LESIONS = "normal"
_MAX_BYTES = 256 * 2**20  #: of one picture in a zip file: far more than any has, far less than a zip bomb
_LAYOUT = "expected NAME.png next to NAME_mask.png, in one folder or in one folder per class"


@dataclass(frozen=True)
class SourceFile:
    """A file of the source: its path in it, and how to get its bytes."""

    path: PurePosixPath
    read: Callable[[], bytes]


@dataclass(frozen=True)
class LabelledImage:
    """A picture, its class (empty where the source has one folder only), and the masks of its lesions, if any."""

    name: str  #: without a suffix
    class_name: str
    image: SourceFile
    masks: tuple[SourceFile, ...]


@contextmanager
def open_source(source: Path) -> Iterator[list[SourceFile]]:
    """Lists the pictures of a folder or zip file, which stays open for reading meanwhile.

    Raises :class:`DataSetError` for a source that is neither, and from ``read`` for a file that cannot be read.
    """
    if source.is_dir():
        yield _files_of_folder(source)
    elif not source.exists():
        raise DataSetError(f"{source} does not exist: give the folder or zip file of the images and masks")
    elif not source.is_file():
        raise DataSetError(f"{source} is neither a folder nor a file")
    else:
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataSetError(f"{source} is neither a folder nor a readable zip file ({error})") from error
        with archive:
            yield _files_of_archive(archive, source)


def find_labelled_images(files: Sequence[SourceFile], source: Path) -> list[LabelledImage]:
    """Puts together which masks belong to which picture, sorted by class and name (numbers by value).

    Raises:
        DataSetError: there are no pictures or no masks, a mask has no picture, two pictures of one class have
            one name, or a picture has no mask although its class is not ``normal``.
    """
    if not files:
        raise DataSetError(f"{source} contains no images: {_LAYOUT}")
    root = _common_folder([file.path.parent for file in files])
    images: dict[PurePosixPath, SourceFile] = {}
    masks: defaultdict[PurePosixPath, list[SourceFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: _natural_key(str(file.path))):
        if match := _MASK_NAME.fullmatch(file.path.stem):
            masks[file.path.with_name(match["image"])].append(file)
            continue
        twin = images.setdefault(file.path.with_name(file.path.stem), file)
        if twin is not file:
            raise DataSetError(f"{source} has two images with the same name, {twin.path} and {file.path}: rename one")
    _check_complete(images, masks, source, root)
    return [
        LabelledImage(key.name, _class_name(key.parent, root), file, tuple(masks.get(key, ())))
        for key, file in images.items()
    ]


def _check_complete(
    images: dict[PurePosixPath, SourceFile],
    masks: dict[PurePosixPath, list[SourceFile]],
    source: Path,
    root: PurePosixPath,
) -> None:
    if not masks:
        raise DataSetError(f"{source} contains no masks; is it the right folder? ({_LAYOUT})")
    if orphans := [str(mask.path) for key, of_key in masks.items() if key not in images for mask in of_key]:
        raise DataSetError(f"{source}: masks without an image: {name_some(orphans)}")
    without = [
        str(file.path)
        for key, file in images.items()
        if key not in masks and _class_name(key.parent, root).lower() != _CLASS_WITHOUT_LESIONS
    ]
    if without:
        raise DataSetError(
            f"{source}: no mask for {name_some(without)}; "
            f"only images of a class named {_CLASS_WITHOUT_LESIONS!r} may lack a mask"
        )


def _files_of_folder(folder: Path) -> list[SourceFile]:
    def read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataSetError(f"{path} cannot be read: {error.strerror}") from error

    try:
        paths = [path for path in folder.rglob("*") if _is_picture(path.relative_to(folder)) and path.is_file()]
    except OSError as error:
        raise DataSetError(f"{folder} cannot be read: {error.strerror}") from error
    return [SourceFile(PurePosixPath(path.relative_to(folder)), partial(read, path)) for path in paths]


def _files_of_archive(archive: zipfile.ZipFile, source: Path) -> list[SourceFile]:
    def read(entry: zipfile.ZipInfo) -> bytes:
        if entry.file_size > _MAX_BYTES:
            raise DataSetError(f"{source}: {entry.filename} unpacks to {entry.file_size} bytes, which is not an image")
        try:
            return archive.read(entry)
        # RuntimeError: the file is encrypted; NotImplementedError: packed by a method that Python lacks
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataSetError(f"{source}: {entry.filename} cannot be unpacked: {error}") from error

    entries = [(PurePosixPath(entry.filename.replace("\\", "/").lstrip("/")), entry) for entry in archive.infolist()]
    return [
        SourceFile(path, partial(read, entry)) for path, entry in entries if not entry.is_dir() and _is_picture(path)
    ]


def _is_picture(path: Path | PurePosixPath) -> bool:
    return path.suffix.lower() in _SUFFIXES and is_visible(path)


def _common_folder(folders: Sequence[PurePosixPath]) -> PurePosixPath:
    first = folders[0]
    return next(parent for parent in [first, *first.parents] if all(f.is_relative_to(parent) for f in folders))


def _class_name(folder: PurePosixPath, root: PurePosixPath) -> str:
    """Names the class after its folder; the only folder there is gives its own name."""
    return root.name if folder == root else str(folder.relative_to(root))


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``benign (2)`` before ``benign (10)``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]
