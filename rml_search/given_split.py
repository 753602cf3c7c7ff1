"""A split that somebody else has made: which images train and which test, as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from rml_search.dataset import SPLITS
from rml_search.errors import DataSetError

_TRAIN, _TEST = SPLITS

#: What published splits call the two sides.
_SIDES = {"train": _TRAIN, "training": _TRAIN, "test": _TEST, "testing": _TEST}
_SIDES |= dict.fromkeys(("val", "valid", "validation"), _TEST)

_DELIMITERS = (",", ";", "\t")  #: spreadsheets write semicolons where the comma is the decimal sign


def read_split(file: Path, names: Collection[str]) -> dict[str, str]:
    """The side, ``train`` or ``test``, of each image that a split lists.

    Args:
        file: CSV with the columns ``name`` and ``split``, as ``prepare`` itself writes it; others are passed over.
            Names may end in ``.png``; ``val`` and the like mean ``test``.
        names: of all images, without their endings.

    Raises:
        DataSetError: it cannot be read, lists an image twice or one that is not there, or leaves a side empty.
    """
    sides: dict[str, str] = {}
    for line, listed, side in _rows(file):
        name = listed if listed in names else listed.removesuffix(".png")
        if side.lower() not in _SIDES or name not in names or name in sides:
            raise DataSetError(f"--split: line {line} of {file}: {_complaint(name, side, sides)}")
        sides[name] = _SIDES[side.lower()]
    for side in SPLITS:
        if side not in sides.values():
            raise DataSetError(f"--split: {file} lists no {side} images")
    return sides


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """The line, the name and the side of each row that holds anything."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text), delimiter=max(_DELIMITERS, key=header.count))
        columns = [cell.strip().lower() for cell in next(reader, [])]
        if not {"name", "split"} <= set(columns):
            raise DataSetError(f"--split: the first line of {file} must name the columns, among them name and split")
        for cells in reader:
            row = dict(zip(columns, map(str.strip, cells), strict=False))
            if any(row.values()):
                yield reader.line_num, row.get("name", ""), row.get("split", "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataSetError(f"--split: cannot read {file} as CSV in UTF-8: {reason}") from None


def _complaint(name: str, side: str, sides: Collection[str]) -> str:
    if side.lower() not in _SIDES:
        return f"the split must be train or test, not {side!r}"
    return f"{name} is listed twice" if name in sides else f"there is no image {name!r}"
