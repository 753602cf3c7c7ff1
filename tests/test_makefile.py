"""Which Pythons the Makefile takes; a program that plays them says another version than the real one's."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
NOT_INSTALLED = 7


@pytest.fixture
def lint(tmp_path: Path):
    """Types ``make lint`` in a copy of what it needs, with a Python of that version that can install nothing."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(CHECKOUT / name, tmp_path)

    def run(version: str) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "python"
        code = f'import sys; sys.version_info = ({version}, 0, "final", 0); exec(sys.argv[1])'
        python.write_text(
            f"#!/bin/sh\n[ \"$1\" = -c ] || exit {NOT_INSTALLED}\nexec '{sys.executable}' -c '{code}' \"$2\"\n"
        )
        python.chmod(python.stat().st_mode | stat.S_IEXEC)
        command = [make, "lint", f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("version", ["2, 7", "3, 9"])
def test_an_old_python_is_refused(lint, version):
    answer = lint(version)
    assert answer.returncode != 0
    assert "is older than Python 3.10; name a newer one: make PYTHON=..." in answer.stderr.splitlines()[0]
    assert "Installing" not in answer.stdout


@pytest.mark.parametrize(("version", "num_warnings"), [("3, 10", 0), ("3, 13", 0), ("3, 14", 1), ("4, 0", 1)])
def test_a_python_newer_than_was_tried_is_told_and_taken(lint, version, num_warnings):
    answer = lint(version)
    assert f"Error {NOT_INSTALLED}" in answer.stderr
    assert "Installing" in answer.stdout
    assert answer.stderr.count("is newer than Python 3.13") == num_warnings
