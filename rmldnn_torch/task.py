"""What training and evaluation have in common: a network, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rmldnn_torch.data import Batch
from rmldnn_torch.losses import LossFunction
from rmldnn_torch.network import Network
from rmldnn_torch.precision import Arithmetic
from rmldnn_torch.shapes import ShapeCheck


@dataclass(frozen=True)
class Task:
    """A network and the loss that judges it.

    Attributes:
        loss: on logits; None where the document has none, for predictions only.
        ignore_index: the class number of pixels that do not count.
        check_shapes: refuses batches that do not fit.
        arithmetic: what the network is computed with; losses and metrics are float32 in any case.
    """

    network: Network
    loss: LossFunction | None
    ignore_index: int | None
    check_shapes: ShapeCheck
    arithmetic: Arithmetic = field(default_factory=Arithmetic)

    def compute_logits(self, batch: Batch) -> Tensor:
        """Float32 output (n, classes, spatial...) without the last activation.

        Raises:
            NetworkError: the samples do not fit the network, or its output not the targets.
        """
        self.check_shapes(batch)
        with self.arithmetic.autocast():
            output, _ = self.network.forward_logits(batch.inputs)
        return output.float()
