"""What a network costs, without running it: ``python -m rmldnn_torch.network_facts layers.json WIDTH HEIGHT BATCH``.

Prints one JSON object, for programs that do not import PyTorch themselves.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rmldnn_contract.exit_status import EngineError
from rmldnn_torch.keras_graph import count_operations, read_network
from rmldnn_torch.network import Network, count_parameters

_BYTES_OF_A_WEIGHT = 4 * 4  #: float32: the weight, its gradient and Adam's two moments
#: What the process itself takes on a CPU. With it the estimate is within an eighth of what the benchmark measured:
#: 1.7 GiB for the tutorial's network at 256 x 256 in batches of 4, 0.9 GiB for the small one at 128 x 128 and 16.
_BYTES_OF_THE_PROCESS = 5 * 10**8


@dataclass(frozen=True)
class NetworkFacts:
    """Operations and parameters as rmldnn counts them, and the bytes that a training needs in float32."""

    num_operations: int
    num_parameters: int
    num_trainable: int
    training_bytes: int


def find_facts(layers: Path, image_size: tuple[int, int], batch_size: int) -> NetworkFacts:
    """Reads a network and measures what its training on images of (width, height) keeps in memory.

    The forward pass is traced on the ``meta`` device, which has shapes and no data; what it keeps for the backward
    pass is added up, each storage once.

    Raises:
        NetworkError: it is no network, or does not take such images.
    """
    graph = read_network(layers)
    network = Network(graph)
    counts = count_parameters(network)
    width, height = image_size
    network.check(height, width)
    kept = _bytes_kept(network, torch.empty(batch_size, network.input_channels, height, width, device="meta"))
    weights = counts.total * _BYTES_OF_A_WEIGHT
    return NetworkFacts(count_operations(graph), counts.total, counts.trainable, weights + kept + _BYTES_OF_THE_PROCESS)


def _bytes_kept(network: Network, images: Tensor) -> int:
    """Bytes of the values that the backward pass needs, the images among them."""
    storages: dict[int, tuple[int, Tensor]] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if not isinstance(value, nn.Parameter):
            # The value is held as well, so that no other storage gets its address.
            storages[storage._cdata] = storage.nbytes(), value
        return value

    keep(images)
    network.to("meta").train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        network(images)
    return sum(size for size, _ in storages.values())


def main(arguments: list[str]) -> int:
    """Prints the facts, or why there are none; gives the exit status."""
    layers, width, height, batch_size = arguments
    try:
        facts = find_facts(Path(layers), (int(width), int(height)), int(batch_size))
    except EngineError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return int(error.exit_status)
    sys.stdout.write(json.dumps(asdict(facts)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
