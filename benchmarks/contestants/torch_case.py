"""What the contestants on PyTorch share: the network as torch has it, and images as most people load them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from contestants.case import Case, random_batch
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.layers.shape import UpSampling
from rmldnn_torch.network import Network


class _PlainUpSampling(nn.Module):
    """Upsampling as torch has it, without our engine's faster gradient."""

    def __init__(self, layer: UpSampling) -> None:
        super().__init__()
        self.layer = layer
        self.output_shape = layer.output_shape

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.interpolate(inputs, scale_factor=tuple(map(float, self.layer.factors)), mode="nearest")


class Logits(nn.Module):
    """The network of the case, in torch's own layers and default formats, without its last activation."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.network = Network(read_network(case.network))
        for name, module in list(self.network.named_children()):
            if isinstance(module, UpSampling):
                setattr(self.network, name, _PlainUpSampling(module))

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_logits(images)[0]


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks, decoded and resized with Pillow each time that they are asked for."""

    def __init__(self, case: Case, split: str) -> None:
        self.files = case.files(split)
        self.size = (case.size, case.size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, mask_path = self.files[index]
        image = np.asarray(Image.open(image_path).convert("RGB").resize(self.size, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.open(mask_path).convert("L").resize(self.size, Image.Resampling.NEAREST))
        return torch.from_numpy(image / np.float32(255)).permute(2, 0, 1), torch.from_numpy(mask > 127).float()[None]


def torch_batch(case: Case) -> tuple[Tensor, Tensor]:
    """The random batch, (batch, channels, height, width) on the case's device."""
    images, masks = (torch.from_numpy(array).permute(0, 3, 1, 2).contiguous() for array in random_batch(case))
    return images.to(case.device), masks.to(case.device)


def wait_for(case: Case) -> None:
    """Until the device has done all."""
    if case.device == "cuda":
        torch.cuda.synchronize()


def dice(overlap: Tensor, total: Tensor) -> float:
    """The Dice coefficient of pixel counts."""
    return float(2 * overlap / total.clamp(min=1))
