"""Whether a network takes the samples and gives what their targets are, told before anything is computed."""

from __future__ import annotations

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.data import Batch
from rmldnn_torch.log import Log
from rmldnn_torch.network import Network

_ANY_SIZE = 256  # a multiple of 32, as the depth of most networks asks for


class ShapeCheck:
    """Looks at each new shape of a batch once."""

    def __init__(self, network: Network, log: Log) -> None:
        self._network = network
        self._log = log
        self._known: set[tuple[tuple[int, ...], tuple[int, ...] | None]] = set()

    def __call__(self, batch: Batch) -> None:
        """Does nothing for a batch that fits.

        Raises:
            NetworkError: the samples do not fit the network, or its output not the targets; names both shapes.
        """
        target_shape = None if batch.targets is None else tuple(batch.targets.shape[1:])
        key = (tuple(batch.inputs.shape[1:]), target_shape)
        if len(batch) == 0 or key in self._known:
            return
        self._check_inputs(key[0])
        output = self._network.check(*key[0][1:])
        if target_shape is not None and batch.targets is not None:
            _check_targets(key[0], output, target_shape, has_channels=batch.targets.is_floating_point())
        self._known.add(key)

    def _check_inputs(self, shape: tuple[int, ...]) -> None:
        channels, *spatial = shape
        expected, *written = self._network.input_shape
        if channels != expected:
            gray = "true" if expected == 1 else "false"
            hint = f"set data.input_grayscale to {gray}" if {channels, expected} == {1, 3} else "use another network"
            raise NetworkError(f"the network takes {expected} channels, the images have {channels}: {hint}")
        if any(size is not None and size != actual for size, actual in zip(written, spatial, strict=False)):
            self._log.line(
                f"The images are {_describe(spatial)}, the network file says {_describe(written)}: "
                "the network runs at the size of the images"
            )


def _check_targets(
    inputs: tuple[int, ...], output: tuple[int, ...], targets: tuple[int, ...], *, has_channels: bool
) -> None:
    channels, *spatial = output
    if (output if has_channels else tuple(spatial)) == targets:
        return
    target_size = targets[1:] if has_channels else targets
    if has_channels and tuple(spatial) == target_size:
        raise NetworkError(
            f"the network gives {channels} channels, the targets have {targets[0]}: "
            "set data.target_is_mask to true for masks, or data.target_grayscale for targets of one channel"
        )
    remedy = "use a network or transforms that make them equal"
    if not target_size:
        remedy = "for labels, end the network in Flatten or GlobalAveragePooling and Dense"
    raise NetworkError(
        f"the network gives {_describe(spatial)} for images of {_describe(inputs[1:])}, "
        f"the targets are {_describe(target_size)}: {remedy}"
    )


def num_axes(network: Network) -> tuple[int, int]:
    """How many spatial axes the network's input and its output have: 2 and 2 for masks, 2 and 0 for labels."""
    # The number does not depend on the sizes that the file leaves open.
    spatial = [_ANY_SIZE if size is None else size for size in network.input_shape[1:]]
    return len(spatial), len(network.check(*spatial)) - 1


def _describe(spatial: tuple[int | None, ...] | list[int] | list[int | None]) -> str:
    """Width before height, as people name image sizes."""
    if not spatial:
        return "one number for each class"
    return "x".join("any" if size is None else str(size) for size in reversed(spatial))
