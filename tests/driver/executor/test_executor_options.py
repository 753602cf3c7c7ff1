"""What the options of a cluster take, and which of them a worker gets."""

from __future__ import annotations

import inspect

import pytest

import rml_optimization
from rml_search.errors import OptionError
from rml_search.executor.options import (
    SUBMITTING_OPTIONS,
    ExecutorName,
    SlurmChoice,
    SlurmOptions,
    parse_further,
    parse_minutes,
    worker_arguments,
)


# The forms and their meanings are those of sbatch's manual.
@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:00", 90),
        ("90:01", 91),
        ("12:00:00", 720),
        ("0:0:1", 1),
        ("2-12", 60 * 60),
        ("2-12:30", 60 * 60 + 30),
        ("7-00:00:00", 7 * 24 * 60),
    ],
)
def test_times_as_slurm_writes_them(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "12h", "-5", "1-2-3", "0", "0-0", "٣"])
def test_other_times_are_refused(text):
    with pytest.raises(OptionError, match="--slurm-time"):
        parse_minutes(text)


def test_further_parameters():
    texts = ["qos=high", "--constraint=a100&nvlink", "exclusive", "comment=a b = c"]
    assert parse_further(texts) == {
        "qos": "high",
        "constraint": "a100&nvlink",
        "exclusive": True,
        "comment": "a b = c",
    }


@pytest.mark.parametrize(
    "text", ["", "=5", "qos=", "Q", "-p=x", "a b", "comment=a\n#SBATCH --uid=0", "output=x", "array"]
)
def test_further_parameters_that_cannot_be(text):
    with pytest.raises(OptionError, match="--slurm-option"):
        parse_further([text])


@pytest.mark.parametrize("name", ["wait", "--parsable", "quiet", "test-only", "clusters=all", "no-requeue"])
def test_what_would_hide_the_job_is_refused(name):
    with pytest.raises(OptionError, match="is not for a search: leave it out"):
        parse_further([name])


@pytest.mark.parametrize(
    ("text", "option"),
    [("time=30:00", "--slurm-time"), ("cpus-per-task=4", "--slurm-cpus"), ("mem=8G", "--slurm-memory")],
)
def test_what_the_search_must_know_has_an_option_of_its_own(text, option):
    with pytest.raises(OptionError, match=f"^--slurm-option: give {option} instead of "):
        parse_further([text])


@pytest.mark.parametrize(
    ("choice", "option"),
    [
        (SlurmChoice(workers=0), "--workers must be at least 1"),
        (SlurmChoice(workers=1001), "--workers must be at most 1000"),
        (SlurmChoice(cpus=0), "--slurm-cpus must be at least 1"),
        (SlurmChoice(gpus="two"), "--slurm-gpus"),
        (SlurmChoice(memory="much"), "--slurm-memory"),
        (SlurmChoice(partition="a b"), "--slurm-partition"),
        (SlurmChoice(account=""), "--slurm-account"),
    ],
)
def test_what_no_cluster_takes_is_refused(choice, option):
    with pytest.raises(OptionError, match=option):
        choice.for_executor(ExecutorName.SLURM)


def test_what_is_typed_is_what_is_asked_for():
    choice = SlurmChoice(32, "gpu", "a100:1", 8, "32g", "12:00:00", "lab", ["qos=high"], True)
    assert choice.for_executor(ExecutorName.SLURM) == SlurmOptions(
        32, "gpu", "a100:1", 8, "32G", 720, "lab", {"qos": "high"}, waits=False
    )
    assert SlurmChoice().for_executor(ExecutorName.SLURM) == SlurmOptions(1, minutes=1440)
    assert SlurmChoice().for_executor(ExecutorName.LOCAL) is None
    with pytest.raises(OptionError, match="--executor slurm"):
        choice.for_executor(ExecutorName.LOCAL)


def test_a_worker_gets_the_command_line_of_the_search_alone():
    typed = """-nt 50 --executor slurm --workers=32 --slurm-partition gpu --slurm-gpus=1 --layers a.json --fresh
        --slurm-option qos=high --slurm-option exclusive --no-wait --loss dice --warm-start old.db -j 2"""
    assert worker_arguments(typed.split()) == ["-nt", "50", "--layers", "a.json", "--loss", "dice", "-j", "2"]
    assert worker_arguments(["--enqueue", '{"loss": "bce"}', "--seed", "3"]) == ["--seed", "3"]


def test_every_option_of_a_cluster_is_known_as_one():
    """Else a worker would submit workers. That a value follows is told by the type."""
    parameters = inspect.signature(rml_optimization.search).parameters
    names = {f"--{name.replace('_', '-')}" for name in parameters}
    ours = {name for name in names if name.startswith("--slurm-")} | {"--executor", "--workers", "--no-wait"}
    assert ours <= names & SUBMITTING_OPTIONS.keys()
    flags = {f"--{name.replace('_', '-')}" for name, each in parameters.items() if isinstance(each.default, bool)}
    for name in SUBMITTING_OPTIONS.keys() & names:
        assert SUBMITTING_OPTIONS[name] == (0 if name in flags else 1), name
