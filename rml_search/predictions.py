"""Reading what inference wrote: ``output_<rank+1>.h5`` with one dataset (C,H,W) for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from rml_search.errors import DataSetError

Scores = npt.NDArray[np.float32]


def read_predictions(source: Path | Sequence[Path]) -> Iterator[tuple[str, Scores]]:
    """Yields the name of each image (with its subfolder, ``a/b.png``) and what the network said of it.

    Args:
        source: a file, several, or the folder that holds the ``output_*.h5`` of all processes.

    Yields:
        name and array (C,H,W) of float32, as the network's last layer left them.

    Raises:
        DataSetError: there is no such file, it is no HDF5 file, or it holds something other than images.
    """
    if isinstance(source, Path):
        files: Sequence[Path] = sorted(source.glob("output_*.h5")) if source.is_dir() else [source]
    else:
        files = source
    if not files:
        raise DataSetError(f"{source} contains no predictions (output_1.h5): run the inference first")
    for file in files:
        yield from _read_file(file)


def _read_file(path: Path) -> Iterator[tuple[str, Scores]]:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataSetError(f"{path} does not exist: run the inference first") from error
    except OSError as error:
        raise DataSetError(f"{path} is not a readable HDF5 file: run the inference again") from error
    with file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            values = np.asarray(file[name][()])
            if values.ndim != 3 or not np.issubdtype(values.dtype, np.floating):
                raise DataSetError(f"{path}: {name} should have shape (channels, height, width), not {values.shape}")
            yield name, values.astype(np.float32)


def lesion_probability(scores: Scores, name: str) -> Scores:
    """Returns the probability (H,W) of anything but background.

    One channel is that probability, from a sigmoid. Of several, the first is the background; a softmax turns them
    into probabilities where the network ended in a logarithm of them. Raises :class:`DataSetError`, naming the
    image ``name``, if the values are no probabilities.
    """
    is_probability = bool(np.isfinite(scores).all()) and scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1
    if len(scores) == 1 and is_probability:
        return np.asarray(scores[0], dtype=np.float32)
    if len(scores) > 1 and np.isfinite(scores).all():
        if not is_probability:
            exponentials = np.exp(scores - scores.max(axis=0))
            scores = exponentials / exponentials.sum(axis=0)
        return np.asarray(1 - scores[0], dtype=np.float32)
    raise DataSetError(f"the prediction for {name} is not a probability: the network must end in a sigmoid or softmax")
