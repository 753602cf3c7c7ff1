"""Programs and terminals that no longer take what a search prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rml_commands.run import run_search
from rml_optuna import OptunaStudy
from rml_search.display import QuietDisplay
from rml_search.display_name import DisplayName
from rml_search.options import RuntimeChoice
from rml_search.plan import SearchPlan
from rml_search.runtime.choice import ChosenRuntime

PROGRAM = str(Path(__file__).resolve().parents[2] / "rml_optimization.py")


def test_a_program_that_reads_no_further_ends_the_command_as_sigpipe_would():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, PROGRAM, "--version"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, b"")


def test_an_error_that_cannot_be_told_keeps_its_exit_code(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, PROGRAM, "status"], cwd=tmp_path, stderr=full, check=False)
    assert done.returncode == 4


def test_a_study_is_closed_where_its_end_cannot_be_shown(workspace, make_options, scripted, script, monkeypatch):
    events = []
    close = OptunaStudy.close

    def gone(*_):
        events.append("gone")
        raise OSError(5, "Input/output error")

    def closed(study):
        events.append("closed")
        close(study)

    chosen = ChosenRuntime(scripted(script([0.5])), "a test")
    monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
    monkeypatch.setattr(QuietDisplay, "searched", gone)
    monkeypatch.setattr(OptunaStudy, "close", closed)
    plan = SearchPlan(display=DisplayName.QUIET, writes_report=False)
    with pytest.raises(OSError, match="Input/output error"):
        run_search(make_options(num_trials=1), plan, workspace, RuntimeChoice(gpu=False), print)
    assert events == ["gone", "closed"]
