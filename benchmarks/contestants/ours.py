"""Our engine: its parts for steps, ``rmldnn --config=FILE`` for epochs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from contestants.case import LEARNING_RATE, Case, answer, random_batch, read_case, time_steps

_STAMP = re.compile(r"^\[(\d{4}-\w{3}-\d\d \d\d:\d\d:\d\d\.\d{6})\] ", re.MULTILINE)


def main() -> None:
    case = read_case()
    if case.steps:
        _time_steps(case)
    else:
        _time_epochs(case)


def _time_steps(case: Case) -> None:
    from rmldnn_torch.allocator import keep_freed_memory
    from rmldnn_torch.openmp import wait_briefly

    keep_freed_memory()
    wait_briefly()

    import torch

    from rmldnn_contract.config import Loss
    from rmldnn_contract.optimizer import Adam
    from rmldnn_torch.keras_graph import read_network
    from rmldnn_torch.losses import build_loss
    from rmldnn_torch.network import Network
    from rmldnn_torch.optimizers import build_optimization
    from rmldnn_torch.options import Options
    from rmldnn_torch.precision import choose_arithmetic
    from rmldnn_torch.run import make_repeatable, place

    make_repeatable(Options())
    device = torch.device(case.device)
    network = place(Network(read_network(case.network)), device)
    loss_function = build_loss(Loss(function="BCE"), network.output_activation, 1)
    optimization = build_optimization(Adam(type="Adam", learning_rate=LEARNING_RATE), network.parameters())
    arithmetic = choose_arithmetic(case.precision, device)
    images, masks = (torch.from_numpy(array).movedim(-1, 1).to(device) for array in random_batch(case))
    network.train()

    def step() -> None:
        optimization.clear_gradients()
        with arithmetic.autocast():
            logits, _ = network.forward_logits(images)
        loss = loss_function(logits.float(), masks)
        loss.backward()
        optimization.step()
        float(loss)

    time_steps(case, step, torch.cuda.synchronize if case.device == "cuda" else lambda: None)


def _time_epochs(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_configuration(case)), encoding="utf-8")
        command = [sys.executable, "-m", "rmldnn_torch", "--config=config.json", f"--precision={case.precision}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        if case.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(run.stdout[-2000:] + run.stderr[-2000:])
    answer(len(case.files("train")) * case.epochs / _seconds(run.stdout), of_child=True)


def _configuration(case: Case) -> dict[str, object]:
    folders = {
        f"{prefix}{kind}_path": f"{case.data}/{split}/{kind}s"
        for prefix, split in (("", "train"), ("test_", "test"))
        for kind in ("input", "target")
    }
    data = {
        "type": "images",
        **folders,
        "batch_size": case.batch,
        "test_batch_size": case.batch,
        "target_is_mask": True,
        "preload": True,
        "transforms": [{"resize": [case.size, case.size]}],
    }
    return {
        "neural_network": {
            "layers": str(Path(case.network).resolve()),
            "num_epochs": case.epochs,
            "data": data,
            "optimizer": {"type": "Adam", "learning_rate": LEARNING_RATE},
            "loss": {"function": "BCE"},
            "checkpoints": {"save": "checkpoints"},
            "outfile": "out.txt",
        }
    }


def _seconds(log: str) -> float:
    """From the first file that the engine opened to its end, as its log says."""
    lines = log.splitlines()
    first = next(line for line in lines if "Discovering training input images" in line)
    last = next(line for line in reversed(lines) if "All done" in line)
    start, end = (datetime.strptime(_STAMP.findall(line)[0], "%Y-%b-%d %H:%M:%S.%f") for line in (first, last))
    return (end - start).total_seconds()


if __name__ == "__main__":
    main()
