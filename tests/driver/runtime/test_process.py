"""Processes: what they print, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from rml_search.errors import RuntimeUnavailableError
from rml_search.runtime.process import start_process

# A parent that starts a child, says both numbers, and waits; it takes no notice of SIGTERM if told so.
FAMILY = """
import signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def run(code: str, directory: Path, *arguments: str):
    return start_process([sys.executable, "-c", code, *arguments], directory)


def is_alive(pid: int) -> bool:
    try:
        # A zombie that nobody has waited for yet has ended all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_lines_of_both_streams_come_in_order(tmp_path):
    code = "import sys, os; print('a', flush=True); print('b', file=sys.stderr, flush=True); print(os.getcwd())"
    with run(code, tmp_path) as engine:
        assert list(engine.lines()) == ["a", "b", str(tmp_path)]
        assert engine.wait().code == 0


def test_exit_code_and_signal_are_told(tmp_path):
    with run("raise SystemExit(68)", tmp_path) as engine:
        list(engine.lines())
        assert engine.wait().code == 68
    with run("import os; os.kill(os.getpid(), 9)", tmp_path) as engine:
        list(engine.lines())
        ended = engine.wait()
    assert (ended.code, ended.note) == (-9, "the engine was stopped by SIGKILL")


def test_arguments_pass_no_shell(tmp_path):
    odd = "a b; $(touch x) 'q' \"ü\" *"
    with run("import sys; print(sys.argv[1])", tmp_path, odd) as engine:
        assert list(engine.lines()) == [odd]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("manner", ["polite", "deaf"])
def test_stop_ends_the_whole_group(tmp_path, monkeypatch, manner):
    monkeypatch.setattr("rml_search.runtime.process.STOP_SECONDS", 0.3)
    with run(FAMILY, tmp_path, manner) as engine:
        child = int(next(engine.lines()))
        engine.stop()
        assert engine.wait().code < 0
    assert wait_until_gone(child)


def test_leaving_the_context_leaves_nothing_behind(tmp_path):
    def is_interrupted():
        with run(FAMILY, tmp_path) as engine:
            children.append(int(next(engine.lines())))
            raise KeyboardInterrupt

    children = []
    with pytest.raises(KeyboardInterrupt):
        is_interrupted()
    assert wait_until_gone(children[0])


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    with (
        pytest.raises(RuntimeUnavailableError, match="cannot start nowhere-to-be-found: No such file"),
        start_process(["nowhere-to-be-found"], tmp_path),
    ):
        pass


def test_the_environment_is_the_persons_and_what_is_added(tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_PERSON", "1")
    code = "import os; print(os.environ['OF_THE_PERSON'], os.environ['ADDED'])"
    with start_process([sys.executable, "-c", code], tmp_path, {"ADDED": "2"}) as engine:
        assert list(engine.lines()) == ["1 2"]
    assert "ADDED" not in os.environ
