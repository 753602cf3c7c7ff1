"""The model case on the real breast-ultrasound images, command by command, as small as it can be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from rml_search.prepare import PrepareSummary

pytestmark = [pytest.mark.busi, pytest.mark.slow, pytest.mark.timeout(900)]

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(prepared_busi: tuple[Path, PrepareSummary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search of two trials of one epoch, whose best one was trained again."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "data").symlink_to(prepared_busi[0])
    options = ["--num-trials", "2", "--num-epochs", "1", "--optimizers", "adam", "--loss", "dice", "--seed", "1"]
    options += ["--layers", str(CHECKOUT / "layers_small_unet.json"), "--image-size", "32", "32", "--batch-size", "32"]
    options += ["--runtime", "local", "--no-gpu", "--confirm", "1", "--confirm-seeds", "2", "--plain"]
    type_command(folder, *options)
    return folder


def type_command(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(CHECKOUT / "rml_optimization.py"), *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout


def test_from_the_search_to_the_report(folder: Path) -> None:
    """Three classes, one of which has no lesions; images of many proportions; a confirmed model."""
    told = type_command(folder, "infer", "--no-gpu", "--gallery", "gallery.png", "--export", "masks")
    classes = [line.split()[1] for line in told.splitlines() if line.startswith(("| b", "| m", "| n", "| all"))]
    assert classes == ["benign", "malignant", "normal", "all"]
    assert cv2.imread(str(folder / "gallery.png")) is not None

    images = sorted((folder / "data/test/inputs").iterdir())
    assert len(images) == 78
    for image in images:
        mask = cv2.imread(str(folder / "masks" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == cv2.imread(str(image)).shape[:2]

    type_command(folder, "report")
    report = (folder / "report/report.html").read_text(encoding="utf-8")
    assert report.count("<figure>") >= 24
    assert 'scope="row">normal</th>' in report
    assert "Retrained with other seeds" in report


def test_every_answer_names_the_confirmed_model(folder: Path) -> None:
    facts = json.loads(type_command(folder, "best", "--format", "json"))
    assert facts["num_trials"]["complete"] == 2
    assert facts["confirmed"]["trial"] == facts["trial"]
    assert facts["confirmed"]["num_runs"] == 2
    assert Path(facts["confirmed"]["checkpoint"]).is_file()
    assert "infer uses its model" in " ".join(type_command(folder, "best").split())
    status = type_command(folder, "status")
    assert re.search(r"^Trials .* 2/2 ", status, re.MULTILINE)
    assert re.search(r"^Runs   .* 2/2 ", status, re.MULTILINE)
