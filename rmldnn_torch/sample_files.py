"""Folders of samples: which files they hold, and which belong together.

Every error is a ``DataError`` that names the file or folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rmldnn_contract.exit_status import DataError


@dataclass(frozen=True)
class SampleFile:
    """A sample below a folder; ``name`` is the path of its file from there, with slashes."""

    path: Path
    name: str

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return str(PurePosixPath(self.name).with_suffix(""))


F = TypeVar("F", bound=SampleFile)


def list_files(folder: Path, suffixes: Collection[str], what: str) -> tuple[SampleFile, ...]:
    """The files of these suffixes in a folder and those below it, sorted by name.

    Hidden files and folders are passed over. ``what`` names the kind in the error for a folder that has none.
    """
    if not is_folder(folder):
        raise DataError(f"there is no folder {folder}: check the paths in the data section")
    names = (PurePosixPath(path.relative_to(folder).as_posix()) for path in _walk(folder))
    files = sorted(str(name) for name in names if name.suffix.lower() in suffixes)
    if not files:
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))
        raise DataError(f"the folder {folder} holds no {what} ({kinds})")
    return tuple(SampleFile(folder / name, name) for name in files)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises ``DataError`` where that cannot be told: a name too long, no right."""
    try:
        return path.is_dir()
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {error.strerror}") from error


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return found


def pair(inputs: Sequence[SampleFile], targets: Sequence[F]) -> tuple[F, ...]:
    """The target of each input, in the order of the inputs.

    They belong together when their names are equal but for the suffix, or when all targets have the same before
    and behind what tells their inputs apart (``scan_7.png`` and ``scan_7_mask.png``, ``image_7`` and ``label_7``).
    rmldnn pairs sorted names without looking at them, which gives the same pairs unless an addition changes the order.

    Raises:
        DataError: an image has no partner; names the first.
    """
    inputs_by_stem, targets_by_stem = _by_stem(inputs), _by_stem(targets)
    if inputs_by_stem.keys() == targets_by_stem.keys():
        return tuple(targets_by_stem[image.stem] for image in inputs)
    partners = _partners_by_addition(inputs_by_stem, targets_by_stem)
    if partners is not None:
        return tuple(partners[image.stem] for image in inputs)
    counts = f"there are {len(inputs)} inputs and {len(targets)} targets, which pair by their names"
    for image in inputs:
        if image.stem not in targets_by_stem:
            raise DataError(f"{image.path} has no target: {counts}")
    alone = next(target for target in targets if target.stem not in inputs_by_stem)
    raise DataError(f"the target {alone.path} has no input: {counts}")


def _by_stem(files: Sequence[F]) -> dict[str, F]:
    by_stem: dict[str, F] = {}
    for file in files:
        if file.stem in by_stem:
            raise DataError(f"{by_stem[file.stem].path} and {file.path} have the same name: remove one of them")
        by_stem[file.stem] = file
    return by_stem


def _partners_by_addition(inputs: Mapping[str, SampleFile], targets: Mapping[str, F]) -> dict[str, F] | None:
    """The target of each input's stem, where each target is ``before`` + what tells that input apart + ``behind``."""
    begin = _num_common_characters(inputs)
    end = _num_common_characters([stem[begin:][::-1] for stem in inputs])
    cores = {stem: stem[begin : len(stem) - end] for stem in inputs}
    example = next(iter(targets))
    num_added = max(map(len, targets)) - max(map(len, cores.values()))
    for num_before in range(min(num_added, _num_common_characters(targets)) + 1):
        before, behind = example[:num_before], example[len(example) - num_added + num_before :]
        names = {stem: f"{before}{core}{behind}" for stem, core in cores.items()}
        if targets.keys() == set(names.values()):
            return {stem: targets[name] for stem, name in names.items()}
    return None


def _num_common_characters(texts: Collection[str]) -> int:
    """How many characters at their beginning all texts share: as many as the first and last in order do."""
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
