"""Small scripts in the place of Slurm's programs."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Makes programs that answer as told, and write down what they were asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(**answers: str) -> None:
        for name, answer in answers.items():
            program = folder / name
            asked = f'{sys.executable} -c "import sys; print(*sys.argv[1:], sep=chr(10))" "$@" > {folder}/{name}.asked'
            program.write_text(f"#!/bin/sh\n{asked}\n{answer}\n")
            program.chmod(0o755)

    make.heard = lambda name: (folder / f"{name}.heard").read_text()
    make.asked = lambda name: (folder / f"{name}.asked").read_text().splitlines()
    return make
