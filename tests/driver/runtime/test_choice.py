"""Which runtime and which device are used, and why."""

from __future__ import annotations

import stat

import pytest

from rml_search.devices import decide_gpu, find_gpus
from rml_search.errors import RuntimeUnavailableError
from rml_search.options import RuntimeChoice, RuntimeName
from rml_search.runtime.choice import choose_runtime


def choose(workspace, **settings):
    chosen = choose_runtime(RuntimeChoice(**settings), workspace, gpu=False, num_procs=1)
    return chosen.runtime.describe(), chosen.reason


def test_what_is_asked_for_is_used(workspace):
    assert choose(workspace, name=RuntimeName.LOCAL) == ("local (built-in engine)", "--runtime local")
    assert choose(workspace, name=RuntimeName.DOCKER) == ("docker (image rocketml/rmldnn:latest)", "--runtime docker")
    named = choose(workspace, name=RuntimeName.LOCAL, docker_image="mine:1")
    assert named == ("local (built-in engine)", "--runtime local")


def test_an_image_that_is_named_decides(workspace):
    assert choose(workspace, docker_image="mine:1") == ("docker (image mine:1)", "--docker-image was given")
    assert choose(workspace, singularity_image="x.sif")[0] == "singularity (image x.sif)"


@pytest.mark.parametrize(
    ("holds", "name"), [(True, "docker (image rocketml/rmldnn:latest)"), (False, "local (built-in engine)")]
)
def test_else_the_default_image_decides(workspace, monkeypatch, holds, name):
    monkeypatch.setattr("rml_search.runtime.docker.holds_image", lambda image: holds)
    described, reason = choose(workspace)
    assert described == name
    assert "rocketml/rmldnn:latest" in reason


def test_auto_without_a_docker_engine_is_the_built_in_one(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert choose(workspace)[0] == "local (built-in engine)"


def test_gpu_is_used_where_there_is_one_unless_said_otherwise():
    assert decide_gpu(None, ("H200",))
    assert not decide_gpu(None, ())
    assert not decide_gpu(False, ("H200",))
    with pytest.raises(RuntimeUnavailableError, match="--gpu was given, but nvidia-smi finds no GPU"):
        decide_gpu(True, ())


def test_gpus_are_those_that_the_driver_names(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA H200\\nNVIDIA H200\\n'\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ("NVIDIA H200", "NVIDIA H200")
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML'; exit 18\n")
    assert find_gpus() == ()
    program.unlink()
    assert find_gpus() == ()
