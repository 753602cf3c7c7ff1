"""Checkpoints: our own ``.pt`` files, those of libtorch and TorchScript, and weights of Keras by layer name.

Nothing that a file contains is executed: ``.pt`` files go through torch's restricted unpickler or our own
(``torchscript_archive``), ``.h5`` files through h5py (``keras_weights``). The kind of a file is told by its first bytes
and its contents, not by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rmldnn_contract.exit_status import CheckpointError
from rmldnn_torch.files import replacing
from rmldnn_torch.keras_weights import FileWeight, expected_file_names, read_keras_weights
from rmldnn_torch.network import Network
from rmldnn_torch.torchscript_archive import is_archive, read_tensors

FORMAT = "rmldnn_torch"
FORMAT_VERSION = 1

FileKind: TypeAlias = Literal["pt", "h5"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class ShapeMismatch:
    """A weight whose shape in the file is not that of the network, both in torch's order of axes."""

    name: str
    file_name: str
    file_shape: tuple[int, ...]
    model_shape: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What loading a checkpoint did.

    Attributes:
        kind: "pt" for torch's files, ours among them, "h5" for Keras's.
        epoch: the epoch after which the file was written, None where it does not say.
        loaded: the names of the network's weights that have the file's values now.
        skipped: (name, name in the file) of each weight that only one side has. A Keras file calls its weights
            ``bn_data/gamma:0``; in a ``.pt`` the two names are the same.
        mismatched: weights that both have in different shapes; their whole layers keep their values.
        missing: the names of the network's weights that kept their values, for either reason.
    """

    kind: FileKind
    epoch: int | None
    loaded: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    mismatched: tuple[ShapeMismatch, ...] = ()
    missing: tuple[str, ...] = ()


def save_checkpoint(path: Path, network: Network, epoch: int) -> None:
    """Write the network's weights to ``path``, whole or not at all; ``epoch`` counts from 1.

    Raises ``OutputError`` where the folder cannot be written or the disk is full.
    """
    write_checkpoint(path, network.state_dict(), network.graph.name, epoch)


def copy_weights(network: Network) -> dict[str, Tensor]:
    """The network's weights as they are now, by name, on their device."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def write_checkpoint(path: Path, weights: Mapping[str, Tensor], network_name: str, epoch: int) -> None:
    """Write weights to ``path``, whole or not at all.

    The file is a dictionary that ``torch.load(path, weights_only=True)`` reads: ``parameters`` (the state_dict),
    ``epoch``, ``network`` (the model's name), ``format`` and ``format_version``.

    Raises ``OutputError`` where the folder cannot be written or the disk is full.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": network_name,
        "epoch": epoch,
        "parameters": {name: tensor.detach().cpu() for name, tensor in weights.items()},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(document, file)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds for a network.

    Attributes:
        epoch: as in :class:`LoadReport`.
        expected: the name that each of the network's weights has in such a file, by its name in the network.
    """

    kind: FileKind
    epoch: int | None
    weights: Sequence[FileWeight]
    expected: Mapping[str, str]


def load_checkpoint(path: Path, network: Network) -> LoadReport:
    """Give ``network`` the weights in the file, matched by name; what does not match keeps its value.

    Raises ``CheckpointError`` as :func:`read_checkpoint` does, and for a file of another network (nothing in it
    matches).
    """
    return assign(read_checkpoint(path, network), path, network)


def read_checkpoint(path: Path, network: Network) -> Checkpoint:
    """What the file holds for ``network``, which stays as it is.

    Takes our own ``.pt`` (or a bare state_dict saved by torch), RocketML's (a module saved by libtorch, or by
    ``torch.jit.save``), and Keras's ``.h5``, weights only or a whole model.

    Raises ``CheckpointError`` for a file that is missing, damaged or of another kind.
    """
    if _read_signature(path) == _HDF5_SIGNATURE:
        return Checkpoint("h5", None, read_keras_weights(path, network), expected_file_names(network))
    epoch, weights = _read_torch_file(path)
    return Checkpoint("pt", epoch, weights, {name: name for name in network.state_dict()})


def assign(checkpoint: Checkpoint, path: Path, network: Network) -> LoadReport:
    """Give ``network`` the weights that were read of ``path`` for it.

    Raises ``CheckpointError`` if nothing matches.
    """
    report = _assign(network.state_dict(), checkpoint)
    if not report.loaded:
        raise CheckpointError(
            f"{str(path)!r} is no checkpoint of the network {network.graph.name!r}: "
            f"none of its {len(checkpoint.weights)} weights fits"
        )
    return report


def _assign(state: Mapping[str, Tensor], checkpoint: Checkpoint) -> LoadReport:
    """Copy what fits into ``state``."""
    weights = checkpoint.weights
    values = {weight.name: weight.value for weight in weights if weight.value is not None}
    mismatched = tuple(_mismatches(state, weights))
    # A layer is taken whole or not at all: half a trained layer is worth less than none.
    spoilt = {_layer_of(mismatch.name) for mismatch in mismatched}
    loaded = tuple(name for name in state if name in values and _layer_of(name) not in spoilt)
    with torch.no_grad():
        for name in loaded:
            state[name].copy_(values[name])
    only_in_file = [
        (weight.name, weight.file_name) for weight in weights if weight.value is None or weight.name not in state
    ]
    only_here = [(name, file_name) for name, file_name in checkpoint.expected.items() if name not in values]
    return LoadReport(
        kind=checkpoint.kind,
        epoch=checkpoint.epoch,
        loaded=loaded,
        skipped=(*only_in_file, *only_here),
        mismatched=mismatched,
        missing=tuple(name for name in state if name not in values or _layer_of(name) in spoilt),
    )


def _mismatches(state: Mapping[str, Tensor], weights: Sequence[FileWeight]) -> Iterator[ShapeMismatch]:
    for weight in weights:
        if weight.name in state and weight.value is not None and weight.value.shape != state[weight.name].shape:
            file_shape, model_shape = tuple(weight.value.shape), tuple(state[weight.name].shape)
            yield ShapeMismatch(weight.name, weight.file_name, file_shape, model_shape)


def _layer_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def _read_signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5_SIGNATURE))
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"Cannot read the checkpoint {str(path)!r}: {reason}") from error


def _read_torch_file(path: Path) -> tuple[int | None, list[FileWeight]]:
    """The epoch (None where the file does not say) and the weights of a file that torch or libtorch wrote."""
    try:
        if is_archive(path):
            return None, [FileWeight(name, name, value) for name, value in read_tensors(path).items()]
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Foreign bytes make an unpickler raise almost anything, and all of it means the same.
        raise CheckpointError(
            f"{str(path)!r} is no checkpoint: neither a whole PyTorch file of tensors nor a Keras .h5 file"
        ) from error
    return _epoch_and_weights(path, document)


def _epoch_and_weights(path: Path, document: object) -> tuple[int | None, list[FileWeight]]:
    if not isinstance(document, Mapping):
        raise CheckpointError(f"{str(path)!r} is no checkpoint: it holds no weights by name")
    version = document.get("format_version", FORMAT_VERSION)
    if document.get("format") == FORMAT and version != FORMAT_VERSION:
        raise CheckpointError(f"{str(path)!r} has format version {version!r}; this engine reads {FORMAT_VERSION}")
    parameters = document.get("parameters", document)
    if not isinstance(parameters, Mapping):
        raise CheckpointError(f"{str(path)!r} is no checkpoint: its 'parameters' are no weights by name")
    weights = [
        FileWeight(name, name, value)
        for name, value in parameters.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    ]
    for weight in weights:
        if weight.value is not None and not _is_dense(weight.value):
            raise CheckpointError(
                f"{str(path)!r} holds {weight.name} as a sparse or complex tensor: save a dense one of real numbers"
            )
    epoch = document.get("epoch")
    return epoch if isinstance(epoch, int) else None, weights


def _is_dense(value: Tensor) -> bool:
    """Whether a weight of real numbers can be copied from it."""
    return value.layout == torch.strided and not value.is_complex()
