"""The command line of the engine, and its output cut into lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rml_search.runtime.base import EngineExit, EngineRun, engine_command, mpi_environment, split_lines
from rmldnn_contract.exit_status import ExitStatus

CONFIG = Path("trials/0003/config.json")


def test_one_process_needs_no_mpirun():
    assert engine_command(EngineRun(CONFIG), gpu=True) == ["rmldnn", "--config=./trials/0003/config.json"]
    assert mpi_environment(1) == {}


def test_several_processes_on_cpu():
    assert engine_command(EngineRun(CONFIG, num_procs=3), gpu=False) == [
        *["mpirun", "-np", "3", "--bind-to", "none", "-x", "OMP_NUM_THREADS=6"],
        *["rmldnn", "--config=./trials/0003/config.json"],
    ]


def test_several_processes_on_gpu():
    command = engine_command(EngineRun(CONFIG, num_procs=4), gpu=True)
    assert command[:5] == ["mpirun", "-np", "4", "-x", "CUDA_VISIBLE_DEVICES=0,1,2,3"]


def test_several_processes_keep_to_the_gpus_that_are_given():
    """Those of a person's CUDA_VISIBLE_DEVICES, of which each process takes one."""
    command = engine_command(EngineRun(CONFIG, num_procs=2), gpu=True, devices=("4", "6", "7"))
    assert command[:5] == ["mpirun", "-np", "2", "-x", "CUDA_VISIBLE_DEVICES=4,6"]


def test_a_trials_gpu_is_numbered_as_nvidia_smi_does(monkeypatch: pytest.MonkeyPatch):
    """Unless the person numbers the GPUs: then as CUDA does in that environment."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "RMLDNN_PRECISION", "RMLDNN_CUDA_GRAPHS"):
        monkeypatch.delenv(name, raising=False)
    run = EngineRun(CONFIG, device="1")
    by_place = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert run.process_environment(gpu=True) == by_place
    assert EngineRun(CONFIG).process_environment(gpu=True) == {}
    assert run.process_environment(gpu=False) == {"CUDA_VISIBLE_DEVICES": ""}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert run.process_environment(gpu=True) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_seed_and_precision_travel_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RMLDNN_PRECISION", raising=False)
    assert EngineRun(CONFIG, seed=3).environment() == {"RMLDNN_SEED": "3"}
    assert EngineRun(CONFIG).environment() == {}
    monkeypatch.setenv("RMLDNN_PRECISION", "float32")
    assert EngineRun(CONFIG).environment() == {"RMLDNN_PRECISION": "float32"}
    monkeypatch.setenv("RMLDNN_CUDA_GRAPHS", "1")
    assert EngineRun(CONFIG).environment() == {"RMLDNN_PRECISION": "float32", "RMLDNN_CUDA_GRAPHS": "1"}


@pytest.mark.parametrize(("code", "status"), [(0, ExitStatus.OK), (65, ExitStatus.DATA), (1, None), (137, None)])
def test_exit_codes_of_our_engine_are_told_from_others(code, status):
    assert EngineExit(code).status is status


@given(lines=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))), data=st.data())
def test_lines_survive_any_cut(lines, data):
    output = "".join(line + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=8)))
    pieces = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    assert list(split_lines(pieces)) == lines


def test_a_last_line_without_end_and_broken_characters_are_kept():
    assert list(split_lines([b"a\r\nb\xff", b"c"])) == ["a", "b\ufffdc"]
