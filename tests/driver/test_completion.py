"""Completion in a real bash: what the keys that a person presses make of a command line."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rml_search.completion import complete_files, complete_names
from rml_search.options import LOSS_NAMES, OPTIMIZER_NAMES

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
ERASE = "\x15"  #: Ctrl-U, which empties the line


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A person's home, with the installed program on their PATH and files that they might name."""
    tmp_path = tmp_path_factory.mktemp("home")
    program = tmp_path / "bin" / "rml-optimization"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from rml_optimization import main\nmain()\n"
    )
    program.chmod(0o755)
    (tmp_path / "networks").mkdir()
    for name in ("resunet.json", "unet.json", "networks/small one.json"):
        (tmp_path / name).write_text("[]")
    return tmp_path


@pytest.fixture(scope="module")
def environment(home) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RML_", "_RML", "PROMPT"))}
    return {**kept, "HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "TERM": "dumb", "PS1": "ready> "}


@pytest.fixture(scope="module")
def bash() -> str:
    path = shutil.which("bash")
    if path is None:
        pytest.skip("bash is not installed")
    return path


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self, bash: str, home: Path, environment: dict[str, str], *arguments: str) -> None:
        master, slave = pty.openpty()
        command = [bash, "--noprofile", *arguments, "-i"]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=home, env=environment, start_new_session=True
        )
        os.close(slave)
        self.master = master
        self.seen = ""

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.master, text.encode())

    def sees(self, pattern: str) -> str:
        """Waits until it stands on the terminal."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(scope="module")
def terminal(bash, home, environment) -> Iterator[Terminal]:
    """A bash whose start-up file is what ``--install-completion`` has written."""
    install = "rml-optimization --install-completion; true"
    subprocess.run([bash, "-c", install], env=environment, cwd=home, check=True, stdout=subprocess.DEVNULL)
    with (home / ".bashrc").open("a") as start:
        start.write("PS1='ready> '\nbind 'set enable-bracketed-paste off'\nbind 'set completion-ignore-case off'\n")
    opened = Terminal(bash, home, environment)
    try:
        opened.sees("ready> ")
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("inf\t", "infer "),
        ("--optimi\t", "--optimizers "),
        ("--optimizers rms\t", "rmsprop "),
        ("-o adam,lar\t", "adam,lars "),
        ("--loss dice,lov\t", "dice,lovasz "),
        ("--sampler cm\t", "cmaes "),
        ("--pruner hyp\t", "hyperband "),
        ("--runtime sing\t", "singularity "),
        ("best --format to\t", "toml "),
        ("--layers res\t", "resunet.json "),
        ("--layers resunet.json,un\t", "resunet.json,unet.json "),
        ("--layers unet.json,networks/\t", r"unet.json,networks/small\\ one.json "),
        ("--data netw\t", "networks/"),
        ("prepare netw\t", "networks/"),
    ],
)
def test_a_tab_completes(terminal, typed, becomes):
    terminal.type(f"{ERASE}rml-optimization {typed}")
    line = terminal.sees(becomes.replace(".", r"\."))
    assert f"rml-optimization {typed.rstrip(chr(9))}" in line


def test_two_tabs_show_what_there_is(terminal):
    terminal.type(f"{ERASE}rml-optimization --optimizers ada\t\t")
    shown = terminal.sees(r"adamw(.|\n)*ready> ")
    assert {"adagrad", "adam", "adamw"} <= set(shown.split())
    terminal.type(f"{ERASE}rml-optimization \t\t")
    shown = terminal.sees(r"prepare(.|\n)*ready> ")
    assert {"infer", "best", "report", "prepare", "demo", "doctor"} <= set(shown.split())


def complete(home, environment, *words):
    """What the program offers for the last of the words, as bash asks for it, and what it loaded for that."""
    asked = {
        **environment,
        "COMP_WORDS": "\n".join(["rml-optimization", *words]),
        "COMP_CWORD": str(len(words)),
        "_RML_OPTIMIZATION_COMPLETE": "complete_bash",
    }
    command = [sys.executable, "-X", "importtime", str(home / "bin" / "rml-optimization")]
    answer = subprocess.run(command, env=asked, cwd=home, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", answer.stderr, flags=re.MULTILINE))
    return answer.stdout.split(), loaded


def test_nothing_heavy_is_loaded_for_it(home, environment):
    offered, loaded = complete(home, environment, "--optimizers", "")
    assert offered == [name.lower() for name in OPTIMIZER_NAMES]
    heavy = {"cv2", "docker", "h5py", "jinja2", "matplotlib", "numpy", "optuna", "plotly", "rich", "scipy", "torch"}
    assert "typer" in loaded
    assert loaded & heavy == set()


def test_the_script_can_be_shown_whatever_way_the_program_is_started(bash, home, environment):
    ways = ["rml-optimization", f"{sys.executable} {CHECKOUT / 'rml_optimization.py'}"]
    scripts = [
        subprocess.check_output([bash, "-c", f"{way} --show-completion; true"], env=environment, cwd=home, text=True)
        for way in ways
    ]
    assert scripts[0] == scripts[1]
    command = f"{scripts[0]}\ncomplete -p rml-optimization"
    answer = subprocess.check_output([bash, "-c", command], env=environment, text=True)
    assert answer.split()[-1] == "rml-optimization"


def test_names_are_offered_once_and_as_they_were_begun():
    optimizers = complete_names(OPTIMIZER_NAMES)
    assert optimizers("adam,ADAGRAD,Ad") == ["adam,ADAGRAD,AdamW"]
    assert optimizers("sgd, ") == []
    assert complete_names(LOSS_NAMES)("") == ["dice", "bce", "nll", "mse", "jaccard", "focal", "lovasz"]


def test_files_after_a_comma_are_offered_without_hidden_ones(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / ".hidden").touch()
    assert complete_files("a,") == ["a,bin/", "a,networks/", "a,resunet.json", "a,unet.json"]
    assert complete_files("a,.h") == ["a,.hidden"]
    assert complete_files(f"a,{home}/ne") == [f"a,{home}/networks/", rf"a,{home}/networks/small\ one.json"]
    assert complete_files("a,nowhere/") == complete_files("res") == []
