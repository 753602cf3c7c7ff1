"""The command line: what it takes, how it ends, and what it leaves when it is ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rmldnn_contract.exit_status import HyperparameterError, MemoryExhaustedError, UsageError
from rmldnn_torch import __version__
from rmldnn_torch.allocator import keep_freed_memory
from rmldnn_torch.command_line import Arguments, as_engine_error, main, parse_arguments
from rmldnn_torch.launch import Launch, read_launch
from rmldnn_torch.openmp import wait_briefly
from rmldnn_torch.options import Options

from .conftest import Document, convolution, layers_of

Written = Callable[[Document], Path]
Capture = pytest.CaptureFixture[str]
CHECKOUT = Path(__file__).resolve().parents[2]
STAMPED = re.compile(r"^\[\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d\.\d{6}\] ")


@contextmanager
def started(*arguments: str, program: str = "", stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, in the working directory of the test; or another ``program``."""
    what = ["-c", program] if program else ["-m", "rmldnn_torch", *arguments]
    environment = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *what]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def finished(*arguments: str, program: str = "", stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of such a process."""
    with started(*arguments, program=program, stdout=stdout) as process:
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    """Reads the output of a process up to the first line with this text."""
    assert process.stdout is not None
    assert any(text in line for line in iter(process.stdout.readline, "")), process.communicate()


# --- arguments


@pytest.mark.parametrize(
    "arguments",
    [["--config=c.json"], ["--config", "c.json"], ["--config=", "c.json"], ["--app=Segmentation", "--config=c.json"]],
)
def test_published_forms(arguments: list[str]) -> None:
    assert parse_arguments(arguments) == Arguments(Path("c.json"), Options(precision="float32"))


def test_options_come_from_the_command_line_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMLDNN_PRECISION")
    assert parse_arguments(["--config=c"]).options == Options(0, deterministic=False, precision="auto")
    monkeypatch.setenv("RMLDNN_SEED", "7")
    monkeypatch.setenv("RMLDNN_PRECISION", "bf16")
    assert parse_arguments(["--config=c"]).options == Options(7, deterministic=False, precision="bf16")
    arguments = ["--config=c", "--seed=9", "--deterministic", "--precision=float32"]
    assert parse_arguments(arguments).options == Options(9, deterministic=True, precision="float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one configuration: rmldnn --config=FILE"),
        (["c.json"], "give one configuration"),
        (["--config=a", "b"], "give one configuration"),
        (["--confg=a"], "unrecognized arguments: --confg=a; see rmldnn --help"),
        (["--config=a", "--app=burgers"], "--app=burgers is not in this engine: use dnn or segmentation"),
        (["--config=a", "--seed=x"], "the seed 'x' is not a whole number"),
        (["--config=a", "--seed=-1"], "the seed '-1' is not a whole number"),
        (["--config=a", "--precision=fp16"], "the precision 'fp16' is none of auto, float32, bf16"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 64
    output = capsys.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    assert STAMPED.match(line)
    assert STAMPED.sub("", line).startswith(f"Error: {message}")


def test_help_and_version(capsys: Capture) -> None:
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            main([option])
        assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "--config FILE" in output
    assert output.endswith(f"rmldnn-torch {__version__}\n")


def test_errors_of_the_configuration_do_not_wait_for_torch(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"neural_network": {}}')
    program = (
        "import sys; from rmldnn_torch.command_line import main\n"
        f"print(main(['--config={tmp_path}/c.json']), 'torch' in sys.modules, 'h5py' in sys.modules)"
    )
    _, output, errors = finished(program=program)
    assert output.endswith("78 False False\n")
    assert errors == ""


# --- how a run ends


def test_a_run_from_the_shell(written: Written) -> None:
    status, output, errors = finished(f"--config={written({'num_epochs': 1})}")
    assert status == 0
    assert errors == ""
    lines = output.splitlines()
    assert all(STAMPED.match(line) for line in lines)
    assert lines[-1].endswith(" All done (return value = 0).")


def test_a_missing_configuration(tmp_path: Path, capsys: Capture) -> None:
    assert main([f"--config={tmp_path}/none.json"]) == 78
    assert "Error: there is no configuration file" in capsys.readouterr().out


def test_the_unexpected_keeps_its_traceback_in_a_file(
    written: Written, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("something\nstrange")

    monkeypatch.setattr("rmldnn_torch.run.run", fail)
    path = written({"outfile": "logs/out.txt"})
    Path("logs").mkdir()
    assert main([f"--config={path}"]) == 70
    output = capsys.readouterr()
    assert output.err == ""
    (line,) = output.out.splitlines()
    assert "Error: unexpected TypeError in the engine; the traceback in logs/rmldnn_traceback.log" in line
    assert "TypeError: something\nstrange" in Path("logs/rmldnn_traceback.log").read_text()


def test_memory_that_does_not_suffice() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    for error in (caught.value, MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")):
        assert isinstance(as_engine_error(error), MemoryExhaustedError)
    assert as_engine_error(ValueError("x")) is None


def test_an_operation_without_a_deterministic_form() -> None:
    error = as_engine_error(RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you"))
    assert isinstance(error, HyperparameterError)
    assert "leave it out" in str(error)


def test_a_full_disk_behind_the_log(written: Written) -> None:
    with Path("/dev/full").open("w") as full:
        status, _, errors = finished(f"--config={written({})}", stdout=full.fileno())
    assert status == 73
    assert errors == "Error: no space left on the disk of the standard output: free some, and run again\n"


def test_nobody_reading_is_no_reason_to_complain(written: Written) -> None:
    with started(f"--config={written({'num_epochs': 1000})}") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""


# --- signals


def test_a_signal_ends_a_training_at_once_and_leaves_nothing_half_written(written: Written) -> None:
    layers = layers_of(convolution("conv1", 64, "relu"), convolution("conv2", 256, "relu"))
    with started(f"--config={written({'num_epochs': 1000, 'layers': layers})}") as process:
        wait_for("Train Epoch [  2/", process)
        sent = time.monotonic()
        process.terminate()
        output, errors = process.communicate(timeout=10)
    assert time.monotonic() - sent < 2
    assert process.returncode == 143
    assert errors == ""
    assert output.endswith(" Stopped by SIGTERM.\n")
    for path in Path("checkpoints").iterdir():
        assert path.name.startswith("model_checkpoint_")
        assert "parameters" in torch.load(path, weights_only=True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_a_long_call_ends_it_too(tmp_path: Path, number: signal.Signals, status: int) -> None:
    # One call into C that takes minutes and does not look for signals, while a temporary file is open.
    program = f"""
import hashlib, pathlib
from rmldnn_torch.termination import end_on_signals
from rmldnn_torch.files import replacing
end_on_signals()
with replacing(pathlib.Path({str(tmp_path)!r}, "whole")) as temporary:
    temporary.touch()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
    with started(program=program) as process:
        wait_for("ready", process)
        time.sleep(0.3)  # until the call has begun: before it, the signal would be a plain exception
        assert len(list(tmp_path.iterdir())) == 1
        sent = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=10) == status
    assert time.monotonic() - sent < 2
    assert list(tmp_path.iterdir()) == []


# --- what the process is told from outside


def test_mpiruns_variables() -> None:
    open_mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    launch = read_launch({**open_mpi, "PMIX_NAMESPACE": "job 1"})
    assert (launch.rank, launch.num_processes) == (1, 4)
    assert launch.job.startswith("job 1-")
    assert launch.job == read_launch({**open_mpi, "OMPI_COMM_WORLD_RANK": "0", "PMIX_NAMESPACE": "job 1"}).job
    mpich = read_launch({"PMI_RANK": "0", "PMI_SIZE": "2"})
    assert (mpich.rank, mpich.num_processes) == (0, 2)
    assert read_launch({}) == Launch(0, 1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "PMI_RANK is 2 and PMI_SIZE 2"),
        ({"PMI_RANK": "x", "PMI_SIZE": "2"}, "PMI_RANK is 'x', which is no number"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALNRANKS": "1"}, "the processes run on several machines"),
    ],
)
def test_variables_that_contradict_each_other(variables: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_launch(variables)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TOP_PAD_", "1"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
        ("GLIBC_TUNABLES", "glibc.malloc.top_pad=1"),
    ],
)
def test_an_allocator_that_the_environment_chooses_is_left_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": "20000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_wait_as_the_environment_says_or_briefly(
    before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    assert {name: os.environ[name] for name in names if name in os.environ} == after
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)


def test_freed_memory_stays_with_the_process() -> None:
    # Large blocks taken and given back again and again: with glibc as it comes each one is mapped and faulted anew.
    program = """
import ctypes, resource
from rmldnn_torch.allocator import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def num_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = libc.malloc(40 * 2**20)
        ctypes.memset(block, 1, 40 * 2**20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
plain = num_faults()
print(keep_freed_memory(), num_faults() < plain / 4)
"""
    assert finished(program=program) == (0, "True True\n", "")
