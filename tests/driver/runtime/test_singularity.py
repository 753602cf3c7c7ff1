"""The command line of Singularity; a program that plays Apptainer records what it is started with."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from rml_search.errors import OptionError, RuntimeUnavailableError
from rml_search.mounts import Mount
from rml_search.paths import Workspace
from rml_search.runtime.base import EngineRun
from rml_search.runtime.singularity import SingularityRuntime, singularity_command

RUN = EngineRun(
    Path("trials/0000/config.json"), mounts=(Mount(Path("/data/my weights.h5"), "/mnt/host/data/my weights.h5"),)
)


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """A program called apptainer that prints its arguments as JSON."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    # By way of sh: the path of this Python may hold a space, which a "#!" line cannot.
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def test_command_line(workspace):
    image = workspace.root / "rmldnn.sif"
    assert singularity_command("apptainer", str(image), workspace, RUN, gpu=True) == [
        *["apptainer", "exec", "--nv"],
        *["--bind", f"{workspace.root}:/home/ubuntu"],
        *["--bind", "/data/my weights.h5:/mnt/host/data/my weights.h5:ro"],
        *["--pwd", "/home/ubuntu", str(image), "rmldnn", "--config=./trials/0000/config.json"],
    ]


def test_no_gpu_and_a_remote_image(workspace):
    command = singularity_command("singularity", "docker://a/b:c", workspace, EngineRun(RUN.config), gpu=False)
    assert "--nv" not in command
    assert "docker://a/b:c" in command


def test_a_path_that_cannot_be_bound_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"cannot bind .*a:b"):
        singularity_command("apptainer", "x.sif", Workspace(tmp_path / "a:b"), EngineRun(RUN.config), gpu=False)


def test_it_is_started_for_real(workspace, apptainer):
    image = workspace.root / "rmldnn.sif"
    image.touch()
    runtime = SingularityRuntime(workspace, str(image), gpu=False)
    runtime.prepare(print)
    with runtime.start(RUN) as engine:
        arguments = json.loads(next(engine.lines()))
        assert engine.wait().code == 0
    assert arguments[0] == "exec"
    assert arguments[-2:] == ["rmldnn", "--config=./trials/0000/config.json"]


def test_missing_program_and_missing_image_are_told(workspace, apptainer, monkeypatch):
    with pytest.raises(RuntimeUnavailableError, match=r"there is no Singularity image nowhere.sif"):
        SingularityRuntime(workspace, "nowhere.sif", gpu=False).prepare(print)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeUnavailableError, match="neither apptainer nor singularity is installed"):
        SingularityRuntime(workspace, "docker://a/b", gpu=False).prepare(print)
