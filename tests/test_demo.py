"""The demo as a person runs it: a real search, its best model run again, and a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmldnn_contract.training_log import read_epochs

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_finds_a_model_that_has_learned(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "rml_optimization.py"), "demo", "--out", "my demo"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    demo = tmp_path / "my demo"
    best = max(json.loads((demo / "list_acc.json").read_text()), key=lambda trial: trial["max_acc"])
    epochs = list(read_epochs((demo / "trials" / f"{best['number']:04}" / "rmldnn.log").read_text().splitlines()))
    assert epochs[0].accuracy is not None
    assert best["max_acc"] > epochs[0].accuracy + 0.05
    assert best["max_acc"] > accuracy_of_all_background(demo / "data" / "test" / "targets") + 0.3
    # Inference repeats what the search has measured, and both tables are the last things on the screen.
    assert answer.stdout.count(f"{best['max_acc']:.3f}") >= 3
    assert "| Best hyperparameters" in answer.stdout
    assert "| Inference" in answer.stdout
    with Image.open(demo / "gallery.png") as gallery:
        assert gallery.width > 1000
    report = (demo / "report" / "report.html").read_text(encoding="utf-8")
    assert f"<strong>{best['max_acc']:.3f}</strong>" in report
    assert report.count('<img src="data:image/webp') == 24
    assert "rml_optimization.py demo --out &#39;my demo&#39;" in report


def accuracy_of_all_background(targets: Path) -> float:
    """The Dice coefficient of the background, halved: that of the lesion, the other class, is 0."""
    masks = np.stack([np.asarray(Image.open(path)) > 0 for path in targets.iterdir()])
    background = np.count_nonzero(~masks)
    return float(2 * background / (background + masks.size) / 2)
