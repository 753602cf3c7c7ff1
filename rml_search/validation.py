"""Images held out of the training images, so that epoch and trial are chosen without the test images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rml_search.dataset import list_pairs, split_folders
from rml_search.errors import DataSetError, OptionError
from rml_search.image_scores import find_classes
from rml_search.new_folder import new_folder
from rml_search.options import SearchOptions
from rml_search.paths import Workspace
from rml_search.splitting import choose_test_images

_SEED = 0


def hold_out_validation_images(options: SearchOptions, workspace: Workspace, show: Callable[[str], None]) -> None:
    """Splits the training images into the two parts of the folder that ``workspace.validation`` names.

    Every class, as sub-folder or name tell it (``benign (7)`` is ``benign``), gives the same share, and copies of one
    picture stay on one side. A split that is there already is kept: the study has been checked to be of the same
    images and fraction. The files are links to the images where the disk allows it.

    Raises:
        DataSetError: there are too few images to part.
        WriteError: the folder cannot be written.
    """
    if options.validation_fraction is None or options.data is None or workspace.validation.exists():
        return
    from rml_search.near_duplicates import group_near_duplicates

    inputs, targets = split_folders(options.data, "train")
    pairs = list_pairs(inputs, targets)
    show(f"Holding out validation images: looking for copies among {len(pairs)} training images")
    groups = group_near_duplicates([image for image, _ in pairs])
    names = [image.relative_to(inputs).with_suffix("").as_posix() for image, _ in pairs]
    classes = find_classes(names)
    held_out = choose_test_images([classes[name] or "" for name in names], groups, options.validation_fraction, _SEED)
    if not any(held_out) or all(held_out):
        raise DataSetError(
            f"--validation-fraction {options.validation_fraction:g} of {len(pairs)} training images leaves one side "
            "empty: use more images or another fraction"
        )
    with new_folder(workspace.validation) as folder:
        for (image, mask), is_held_out in zip(pairs, held_out, strict=True):
            part = split_folders(folder, "test" if is_held_out else "train")
            _place(image, part.inputs / image.relative_to(inputs))
            _place(mask, part.targets / mask.relative_to(targets))
    show(f"{sum(held_out)} held out to select epoch and trial; the test images are used once, at the end")


def check_validation_fraction(options: SearchOptions) -> None:
    """Raises OptionError where no images can be held out."""
    fraction = options.validation_fraction
    if fraction is None:
        return
    if not 0 < fraction < 1:
        raise OptionError(f"--validation-fraction must be between 0 and 1, not {fraction:g}")
    if options.data is None:
        raise OptionError("--validation-fraction needs folders of images and masks: give them with --data")


def validation_data(options: SearchOptions, workspace: Workspace) -> Path | None:
    """The data set that trials see: the person's, or the one that is split once more."""
    return options.data if options.validation_fraction is None else workspace.validation


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
