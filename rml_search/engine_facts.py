"""What the built-in engine says of this machine and of a network, asked of processes of its own: PyTorch stays out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rml_search.errors import NetworkFileError, RuntimeUnavailableError
from rml_search.runtime.local import engine_module

_PATIENCE_SECONDS = 120  #: the first import of PyTorch on a slow disk takes tens of seconds


class TorchFacts(BaseModel):
    """PyTorch's version, the names of the GPUs that it can use, and whether bf16 is fast on what it would use."""

    model_config = ConfigDict(frozen=True)

    version: str
    gpus: tuple[str, ...]
    has_bf16: bool


class NetworkFacts(BaseModel):
    """Operations and parameters as rmldnn counts them, and the bytes that a training needs in float32."""

    model_config = ConfigDict(frozen=True)

    num_operations: int
    num_parameters: int
    num_trainable: int
    training_bytes: int


def ask_torch() -> TorchFacts:
    """Asks PyTorch for its version and its devices.

    Raises:
        RuntimeUnavailableError: it is not installed, or broken.
    """
    try:
        return TorchFacts.model_validate(_ask("rmldnn_torch.device_facts", []))
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise RuntimeUnavailableError(f"PyTorch is installed but does not work: {_last_words(error)}") from None


def ask_network(layers: Path, image_size: tuple[int, int], batch_size: int) -> NetworkFacts:
    """Asks what a network costs that is trained with Adam on images of (width, height) in batches.

    Raises:
        NetworkFileError: the engine cannot read it, or it does not take such images.
        RuntimeUnavailableError: the engine is not installed, or broken.
    """
    arguments = [str(layers.resolve()), *map(str, image_size), str(batch_size)]
    try:
        answer = _ask("rmldnn_torch.network_facts", arguments)
        if "error" in answer:
            raise NetworkFileError(str(answer["error"]))
        return NetworkFacts.model_validate(answer)
    except ValidationError as error:
        raise RuntimeUnavailableError(f"unexpected answer from the engine: {error}") from None
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise RuntimeUnavailableError(f"the engine could not check the network: {_last_words(error)}") from None


def _ask(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    command = [*engine_module(module), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    lines = answer.stdout.splitlines()
    if not lines:
        raise subprocess.CalledProcessError(answer.returncode, module, stderr=answer.stderr)
    found = json.loads(lines[-1])
    if not isinstance(found, dict):
        raise ValueError(f"{module} has printed {lines[-1]}")
    return found


def _last_words(error: Exception) -> str:
    words = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line.strip() for line in (words or "").splitlines() if line.strip()]
    return lines[-1] if lines else "it exited without a message"
