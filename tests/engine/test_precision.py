"""Which precision is chosen, and that bf16 changes the speed and not the form of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rmldnn_contract.exit_status import DeviceError
from rmldnn_contract.training_log import EpochRecord, read_epochs, without_stamp
from rmldnn_torch.command_line import main
from rmldnn_torch.options import Options, PrecisionChoice
from rmldnn_torch.precision import Arithmetic, choose_arithmetic
from rmldnn_torch.run import make_repeatable

from .conftest import Document, layers_of

Written = Callable[[Document], Path]
Capture = pytest.CaptureFixture[str]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("choice", "instructions", "needs_float32", "expected"),
    [
        ("auto", {"avx512_bf16": True}, False, "bf16"),
        ("auto", {"avx512_bf16": False, "amx_bf16": True}, False, "bf16"),
        ("auto", {"bf16": True}, False, "bf16"),
        ("auto", {"avx512_bf16": False, "avx2": True}, False, "float32"),
        ("auto", {"avx512_bf16": True}, True, "float32"),
        ("bf16", {}, False, "bf16"),
        ("bf16", {}, True, "bf16"),
        ("float32", {"avx512_bf16": True}, False, "float32"),
    ],
)
def test_the_choice_on_a_cpu(
    choice: PrecisionChoice,
    instructions: dict[str, bool],
    needs_float32: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert choose_arithmetic(choice, CPU, needs_float32=needs_float32) == Arithmetic(CPU, expected)  # type: ignore[arg-type]


def test_float32_keeps_its_digits_where_the_environment_asks_for_fewer() -> None:
    """NVIDIA's images set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which is this setting of torch at its start."""
    torch.set_float32_matmul_precision("high")
    make_repeatable(Options())
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_an_older_torch_does_not_say_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_arithmetic("auto", CPU).precision == "float32"


def test_the_choice_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_arithmetic("auto", GPU).precision == "bf16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert choose_arithmetic("auto", GPU).precision == "float32"
    with pytest.raises(DeviceError, match="Tesla V100 has no bf16: use --precision=float32"):
        choose_arithmetic("bf16", GPU)


def test_bf16_trains_like_float32_and_leaves_weights_in_float32(written: Written, capsys: Capture) -> None:
    path = written({"num_epochs": 8, "loss.function": "Dice"})
    exact, lines = _epochs(path, "float32", capsys)
    assert "Precision: float32" in lines
    weights = torch.load("checkpoints/model_checkpoint_8.pt", weights_only=True)["parameters"]
    rounded, lines = _epochs(path, "bf16", capsys)
    assert "Precision: bf16" in lines
    rounded_weights = torch.load("checkpoints/model_checkpoint_8.pt", weights_only=True)["parameters"]
    assert {value.dtype for value in rounded_weights.values()} == {torch.float32}
    # Other numbers, or bf16 was not there; and near enough to be the same training.
    assert any(not torch.equal(weights[name], rounded_weights[name]) for name in weights)
    assert rounded[0].train_loss == pytest.approx(exact[0].train_loss, rel=0.02)
    assert rounded[-1].accuracy == pytest.approx(exact[-1].accuracy, abs=0.03)


def test_values_are_not_rounded_to_bf16_unless_it_is_asked_for(
    written: Written, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    linear = written({"layers": layers_of(activation="linear"), "loss": {"function": "MSE"}})
    for precision, expected in (("auto", "float32"), ("bf16", "bf16")):
        _, lines = _epochs(linear, precision, capsys)
        assert f"Precision: {expected}" in lines
    _, lines = _epochs(written({}), "auto", capsys)
    assert "Precision: bf16" in lines


def test_bf16_is_repeatable(written: Written, capsys: Capture) -> None:
    path = written({})
    first, _ = _epochs(path, "bf16", capsys)
    again, _ = _epochs(path, "bf16", capsys)
    assert first == again


def _epochs(path: Path, precision: str, capsys: Capture) -> tuple[list[EpochRecord], list[str]]:
    assert main([f"--config={path}", f"--precision={precision}"]) == 0
    lines = [without_stamp(line) for line in capsys.readouterr().out.splitlines()]
    return list(read_epochs(lines)), lines
