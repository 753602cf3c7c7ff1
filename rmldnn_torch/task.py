"""What training and evaluation have in common: a network, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rmldnn_torch.data import Batch
from rmldnn_torch.losses import LossFunction
from rmldnn_torch.network import Network
from rmldnn_torch.shapes import ShapeCheck


@dataclass(frozen=True)
class Task:
    """A network and the loss that judges it.

    Attributes:
        loss: on logits; None where the document has none, for predictions only.
        ignore_index: the class number of pixels that do not count.
        check_shapes: refuses batches that do not fit.
    """

    network: Network
    loss: LossFunction | None
    ignore_index: int | None
    check_shapes: ShapeCheck

    def compute_logits(self, batch: Batch) -> Tensor:
        """Float32 output (n, classes, spatial...) without the last activation.

        This is the one place that decides on precision: all is computed in float32.

        Raises:
            NetworkError: the samples do not fit the network, or its output not the targets.
        """
        self.check_shapes(batch)
        output, _ = self.network.forward_logits(batch.inputs)
        return output.float()
