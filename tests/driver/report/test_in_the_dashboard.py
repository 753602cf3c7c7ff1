"""``study.db`` in the real optuna-dashboard: a search's database is opened as it is, by its server and in a browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from rml_optuna import open_study
from rml_search.limits import Limits
from rml_search.observer import SilentObserver
from rml_search.options import PrunerName, StudyChoice
from rml_search.search import Search


@pytest.fixture
def searched(workspace, make_options, scripted, script):
    """A search that has ended: complete with 0.7, failed in its second epoch, pruned with 0.5, complete with 0.9."""
    scripts = (script([0.5, 0.7, 0.6]), script([0.25], code=1), script([0.5], hangs=True), script([0.9]))
    options = make_options(num_trials=4)
    study = open_study(workspace, options, StudyChoice(pruner=PrunerName.NONE), print)
    Search(options, workspace, scripted(*scripts), study, SilentObserver(), Limits(trial_seconds=1.5)).run()
    study.close()
    return workspace


class Dashboard:
    """The dashboard's server for a database, on the loopback device."""

    def __init__(self, database: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        program = str(Path(sys.executable).with_name("optuna-dashboard"))
        arguments = [f"sqlite:///{database}", "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        with database.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen([program, *arguments], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, database.with_suffix(".log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            self.ask("/api/meta")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def ask(self, path: str) -> dict:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def dashboard(searched, tmp_path) -> Iterator[Dashboard]:
    """The dashboard with a copy of ``study.db`` alone, as a person would take it to another machine."""
    copy = tmp_path / "copy.db"
    shutil.copy(searched.study_database, copy)
    opened = Dashboard(copy)
    try:
        yield opened
    finally:
        opened.close()


def test_the_server_tells_trials_states_and_epochs(dashboard, searched):
    [study] = dashboard.ask("/api/studies")["study_summaries"]
    assert study["study_name"] == "rml-optimization"
    assert study["directions"] == ["maximize"]
    told = dashboard.ask(f"/api/studies/{study['study_id']}?after=0")
    trials = sorted(told["trials"], key=lambda trial: trial["number"])
    assert [trial["state"] for trial in trials] == ["Complete", "Fail", "Pruned", "Complete"]
    assert [trial.get("values") for trial in trials] == [[0.7], None, [0.5], [0.9]]
    epochs = [[(point["step"], point["value"]) for point in trial["intermediate_values"]] for trial in trials]
    assert epochs == [[(1, 0.5), (2, 0.7), (3, 0.6)], [(1, 0.25)], [(1, 0.5)], [(1, 0.9)]]
    assert [trial["number"] for trial in told["best_trials"]] == [3]
    records = json.loads(searched.list_acc.read_text())
    for trial, record in zip(trials, records, strict=True):
        values = {param["name"]: param["param_external_value"] for param in trial["params"]}
        point = {name: str(record[key]) for name, key in (("optimizer", "optimizer"), ("loss", "loss"))}
        assert {**values, "learning_rate": float(values["learning_rate"])} == {**point, "learning_rate": record["lr"]}


@pytest.mark.browser
def test_a_browser_shows_study_and_trials(dashboard, chromium):
    for kind in ("browser", "performance"):
        chromium.get_log(kind)  # what earlier pages have said
    chromium.get(f"{dashboard.address}/dashboard")
    has_text = "return document.body.innerText"
    WebDriverWait(chromium, 60).until(lambda driver: "rml-optimization" in driver.execute_script(has_text))
    [study] = dashboard.ask("/api/studies")["study_summaries"]
    chromium.get(f"{dashboard.address}/dashboard/studies/{study['study_id']}/trials")
    shown = WebDriverWait(chromium, 60).until(
        lambda driver: (text := driver.execute_script(has_text)) and "Trial 3" in text and text
    )
    assert all(f"Trial {number}" in shown for number in range(4))
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
