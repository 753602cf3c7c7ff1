"""A stand-in for RocketML's closed engine: it prints published log lines and writes the files that they speak of.

It cannot be had on a test machine. The built-in engine and its image are tested for real elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rml_search.network_file import NetworkFile
from rml_search.options import SearchOptions
from rml_search.paths import Workspace
from rml_search.prepare import PrepareSummary, prepare
from rml_search.runtime.base import EngineExit, EngineRun

#: What a network file holds at the least, for tests that train nothing.
NETWORK = [{"class_name": "Conv2D", "config": {"name": "a", "activation": "sigmoid"}}]

STAMP = "[2022-Mar-24 21:44:12.182169] "


@dataclass
class Script:
    """One run of the stand-in: accuracies of its epochs, what it prints after them, how it ends."""

    accuracies: Sequence[float | str] = ()
    words: Sequence[str] = ()
    code: int = 0
    note: str | None = None
    num_checkpoints: int | None = None
    writes_late: bool = False  #: each checkpoint after the line of its epoch
    is_machines_fault: bool = False
    seconds: float = 0.0  #: of each epoch
    hangs: bool = False  #: it goes on until it is stopped
    interrupts: bool = False  #: a person presses Ctrl-C, and it goes on until it is stopped

    def __post_init__(self) -> None:
        self.hangs = self.hangs or self.interrupts


@dataclass
class ScriptedEngine:
    script: Script
    checkpoints: Path
    seen_checkpoints: list[list[int]] = field(default_factory=list)  #: when each epoch's line was read
    held_checkpoints: list[list[int]] = field(default_factory=list)  #: when each checkpoint was written
    stopped: bool = False
    closed: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def lines(self) -> Iterator[str]:
        yield (
            STAMP
            + "Train Epoch [  1/  9] : Batch [    1/    1] (Loss = 0.7028; |g| = 0.5123) [Data: 27%; Compute: 72%]"
        )
        num_checkpoints = len(self.script.accuracies)
        if self.script.num_checkpoints is not None:
            num_checkpoints = self.script.num_checkpoints
        for epoch, accuracy in enumerate(self.script.accuracies, start=1):
            if self.ended.wait(self.script.seconds):
                return
            if epoch <= num_checkpoints and not self.script.writes_late:
                self._write_checkpoint(epoch)
            text = accuracy if isinstance(accuracy, str) else f"{accuracy:.3f}"
            yield f"{STAMP}Eval  Epoch [{epoch:3}/  9] : Batch [    1/    1] (Loss: 0.6603) | Accuracy: {text}"
            self.seen_checkpoints.append(self._there())
            if epoch <= num_checkpoints and self.script.writes_late:
                self._write_checkpoint(epoch)
                yield f"{STAMP}Train Epoch [{epoch + 1:3}/  9] : Batch [    1/    1] (Loss = 0.7028; |g| = 0.5123)"
        if self.script.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        if self.script.hangs:
            assert self.ended.wait(timeout=30), "nobody has stopped the engine"
        yield from self.script.words

    def _write_checkpoint(self, epoch: int) -> None:
        (self.checkpoints / f"model_checkpoint_{epoch}.pt").write_text(f"{self.checkpoints}: epoch {epoch}")
        self.held_checkpoints.append(self._there())

    def _there(self) -> list[int]:
        return sorted(int(path.stem[17:]) for path in self.checkpoints.glob("model_checkpoint_*"))

    def stop(self) -> None:
        self.stopped = True
        self.ended.set()

    def wait(self) -> EngineExit:
        return EngineExit(self.script.code, self.script.note, self.script.is_machines_fault)


@dataclass
class ScriptedRuntime:
    """A runtime whose engine plays the scripts in turn; it keeps what it was started with."""

    workspace: Workspace
    scripts: list[Script]
    in_container: bool = False
    name: str = "scripted"
    runs: list[EngineRun] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    engines: list[ScriptedEngine] = field(default_factory=list)
    most_at_a_time: int = 0

    def describe(self) -> str:
        return "scripted"

    def prepare(self, show: Callable[[str], None]) -> None:
        pass

    def remove_leftovers(self, *_: object) -> None:
        pass

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[ScriptedEngine]:
        self.runs.append(run)
        document = json.loads((self.workspace.root / run.config).read_text())["neural_network"]
        self.documents.append(document)
        folder = self.workspace.root / document.get("checkpoints", {}).get("save", ".")
        engine = ScriptedEngine(self.scripts[len(self.runs) - 1], folder)
        self.engines.append(engine)
        self.most_at_a_time = max(self.most_at_a_time, sum(not other.closed for other in self.engines))
        try:
            yield engine
        finally:
            engine.closed = True


@pytest.fixture(scope="session")
def prepared_busi(busi_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareSummary]:
    """A dataset of the real breast-ultrasound images, which tests only read, and how it was split."""
    out = tmp_path_factory.mktemp("busi") / "data"
    return out, prepare(busi_dir / "Dataset_BUSI_with_GT", out, report=print)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A working directory with a data set of three images and a network file."""
    root = tmp_path / "a search with 'quotes' and ümlauts"
    for split, count in (("train", 2), ("test", 1)):
        for kind in ("inputs", "targets"):
            folder = root / "data" / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8)).save(folder / f"image {number}.png")
    (root / "layers.json").write_text(json.dumps(NETWORK))
    return Workspace(root)


@pytest.fixture
def make_options(workspace: Workspace) -> Callable[..., SearchOptions]:
    """Options of a search in ``workspace``; keywords change some of them."""

    def make(**changes: Any) -> SearchOptions:
        settings: dict[str, Any] = {
            "num_trials": 2,
            "num_epochs": 3,
            "optimizers": ("adam", "sgd"),
            "losses": ("bce", "dice"),
            "layers": (workspace.root / "layers.json",),
            "data": workspace.root / "data",
            "seed": 5,
            "networks": (NetworkFile(input_channels=3, output_activation="sigmoid"),),
        }
        return SearchOptions(**{**settings, **changes})

    return make


@pytest.fixture
def scripted(workspace: Workspace) -> Callable[..., ScriptedRuntime]:
    """Makes a runtime that plays scripts: ``scripted(Script(...), Script(...), in_container=True)``."""

    def make(*scripts: Script, in_container: bool = False) -> ScriptedRuntime:
        return ScriptedRuntime(workspace, list(scripts), in_container=in_container)

    return make


@pytest.fixture
def script() -> type[Script]:
    """The class of the scripts."""
    return Script
