"""Labels for classification: the class of a sample is the name of a folder that holds its file.

That is the folder right above the file, or, with a tag, the one right below the folder of that name, wherever it
stands in the path. Classes are numbered from 0 in the order of their names (as text: ``10`` comes before ``2``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rmldnn_contract.exit_status import DataError
from rmldnn_torch.data import DataSettings
from rmldnn_torch.sample_files import SampleFile


class LabelSource:
    """The class number of each sample, as a :class:`~rmldnn_torch.sources.Source`.

    ``labels`` are the names of the samples' classes, which are all in ``classes``.
    """

    is_in_memory = True

    def __init__(self, labels: Sequence[str], classes: Sequence[str]) -> None:
        numbers = {name: number for number, name in enumerate(classes)}
        self._numbers = torch.tensor([numbers[label] for label in labels])

    def fetch(self, indices: Sequence[int]) -> Tensor:
        """Int64 (n,) class numbers."""
        return self._numbers[torch.tensor(indices)]


def read_labels(files: Sequence[SampleFile], tag: str | None) -> tuple[str, ...]:
    """The name of each file's class. Raises ``DataError`` where a path has no folder below the ``tag``'s."""
    return tuple(_label(file.path, tag) for file in files)


def _label(path: Path, tag: str | None) -> str:
    folders = path.absolute().parts[:-1]
    if tag is None:
        return folders[-1]
    places = [place for place, name in enumerate(folders[:-1]) if name == tag]
    if not places:
        raise DataError(
            f"{path} lies in no folder of a class below a folder {tag!r}: check training_tag and test_tag, "
            "or leave them out where the folder that holds a file is its class"
        )
    return folders[places[-1] + 1]


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers."""
    return tuple(sorted(set(labels)))


def check_classes(classes: Sequence[str], labels: Sequence[str], settings: DataSettings, *, are_trained: bool) -> None:
    """Whether the network has an output for each class, and each label is a class.

    A network of one output tells two classes apart. Classes that only test samples were there to name must be
    complete, as the number of a class depends on all names before it. Raises ``DataError``.
    """
    num_classes = max(settings.num_classes, 2)
    named = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    if len(classes) > num_classes:
        raise DataError(f"the samples have {len(classes)} classes ({named}), the network tells {num_classes} apart")
    if len(classes) < num_classes and not are_trained:
        raise DataError(
            f"the test samples have {len(classes)} classes ({named}), the network tells {num_classes} apart, and which "
            "ones these are cannot be told: add a sample of each other class, or remove target_type"
        )
    unknown = set(labels).difference(classes)
    if unknown:
        raise DataError(
            f"no training sample has the class {min(unknown)!r}, which test samples have: {named} are known"
        )
