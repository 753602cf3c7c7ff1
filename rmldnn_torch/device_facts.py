"""What PyTorch finds on this machine, as one JSON object: ``python -m rmldnn_torch.device_facts``."""

from __future__ import annotations

import json
import sys

import torch

from rmldnn_torch.precision import has_bf16_instructions


def main() -> None:
    """Prints PyTorch's version, the GPUs that it can use, and whether the device of a training has bf16."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    device = torch.device("cuda" if gpus else "cpu")
    facts = {"version": torch.__version__, "gpus": gpus, "has_bf16": has_bf16_instructions(device)}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
