"""What the environment says of GPUs and cores, by the words of the manuals of CUDA and Slurm."""

from __future__ import annotations

import pytest

from rml_search.allotment import gpus_of_engine, own_cores, own_gpus, visible_gpus
from rml_search.devices import Slot, plan_slots

VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_CPUS_PER_TASK")


@pytest.fixture(autouse=True)
def set_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ("A", "B", "C", "D")),
        ("2,0", ("C", "A")),
        (" 3 ", ("D",)),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("B",)),
        ("NoDevFiles", ()),  # Slurm, to a job that has asked for none
        ("1,7", ("B",)),
        ("GPU-8f3a,MIG-1b", ("A", "B")),
    ],
)
def test_gpus_that_this_process_may_use(set_variables, visible, names):
    if visible is not None:
        set_variables({"CUDA_VISIBLE_DEVICES": visible})
    assert own_gpus(("A", "B", "C", "D")) == names


def test_trials_share_the_gpus_that_are_this_processs_own(set_variables):
    set_variables({"CUDA_VISIBLE_DEVICES": "5,7"})
    assert visible_gpus(2) == ("5", "7")
    assert [slot.device for slot in plan_slots(3, (), num_gpus=2)] == ["5", "7", "5"]
    assert [slot.device for slot in plan_slots(1, ("1",), num_gpus=2)] == ["7"]
    assert plan_slots(1, (), num_gpus=2) == (Slot(),)  # the engine reads the variable itself


@pytest.mark.parametrize(
    ("variables", "device", "gpus"),
    [
        ({}, None, None),
        ({}, "1", ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, None, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, "3", ("3",)),
        ({"CUDA_VISIBLE_DEVICES": "2, 3"}, None, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "0, 1", "SLURM_JOB_GPUS": "4,6"}, "1", ("6",)),
        # A job that sees only its own GPUs (ConstrainDevices=yes), and one that sees all.
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,6"}, "1", ("6",)),
        ({"CUDA_VISIBLE_DEVICES": "4,6", "SLURM_JOB_GPUS": "4,6"}, "6", ("6",)),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_GPUS": "4,6", "SLURM_STEP_GPUS": "6"}, None, ("6",)),
        ({"SLURM_JOB_GPUS": "4,6"}, "0", ("4",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f", "SLURM_JOB_GPUS": "4"}, "GPU-8f", ("4",)),
    ],
)
def test_gpus_by_the_numbers_of_a_docker_engine(set_variables, variables, device, gpus):
    set_variables(variables)
    assert gpus_of_engine(device) == gpus


@pytest.mark.parametrize(("text", "cores"), [(None, 64), ("8", 8), ("128", 64), ("0", 64), ("many", 64)])
def test_cores(set_variables, text, cores):
    if text is not None:
        set_variables({"SLURM_CPUS_PER_TASK": text})
    assert own_cores(64) == cores
