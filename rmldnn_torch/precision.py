"""The numbers that a network is computed with: float32, or bfloat16 where the processor multiplies those itself.

With ``bf16`` torch's autocast computes convolutions, dense layers and what lies between them in bfloat16, which has
float32's range and 8 bits of mantissa. Weights, gradients, optimizer, losses and metrics stay float32, so neither
checkpoints nor log lines change their form, and no loss needs to be scaled.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch

from rmldnn_contract.exit_status import DeviceError
from rmldnn_torch.options import PrecisionChoice

Precision: TypeAlias = Literal["float32", "bf16"]

_FIRST_CUDA_WITH_BF16 = (8, 0)  # Ampere


@dataclass(frozen=True)
class Arithmetic:
    """A device, and the precision of the network's values on it."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a network is run forward."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def choose_arithmetic(choice: PrecisionChoice, device: torch.device, *, needs_float32: bool = False) -> Arithmetic:
    """The arithmetic for a choice: ``auto`` takes bf16 wherever the device has instructions for it.

    Args:
        needs_float32: whether the run needs more digits than bf16 has; ``auto`` then takes float32.

    Raises:
        DeviceError: bf16 is asked for on a GPU that lacks it. A processor without such instructions has it emulated.
    """
    if choice == "bf16" and device.type == "cuda" and not has_bf16_instructions(device):
        raise DeviceError(f"{torch.cuda.get_device_name(device)} has no bf16: use --precision=float32")
    if choice != "auto":
        return Arithmetic(device, choice)
    return Arithmetic(device, "bf16" if has_bf16_instructions(device) and not needs_float32 else "float32")


def has_bf16_instructions(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: AVX-512 BF16, AMX, ARM's, or CUDA's from 8.0 on."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _FIRST_CUDA_WITH_BF16
    return _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    # Younger than torch 2.6, and without a successor for older ones: there bf16 must be asked for.
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: dict[str, object] = get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
