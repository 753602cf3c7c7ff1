"""The command line: arguments in, exit status out, every error one line of the log."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rmldnn_contract.config import NeuralNetwork, read_configuration
from rmldnn_contract.exit_status import (
    DeviceError,
    EngineError,
    ExitStatus,
    HyperparameterError,
    MemoryExhaustedError,
    OutputError,
    UsageError,
)
from rmldnn_contract.names import canonical_name
from rmldnn_contract.training_log import Failure
from rmldnn_torch import __version__
from rmldnn_torch.files import means_disk_full
from rmldnn_torch.launch import Launch, OtherProcessEnded, read_launch
from rmldnn_torch.log import Log
from rmldnn_torch.options import PRECISION_CHOICES, Options, PrecisionChoice
from rmldnn_torch.termination import Terminated

SEED_VARIABLE = "RMLDNN_SEED"
PRECISION_VARIABLE = "RMLDNN_PRECISION"
CUDA_GRAPHS_VARIABLE = "RMLDNN_CUDA_GRAPHS"
_APPLICATIONS = ("dnn", "segmentation")
_OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
_NOT_DETERMINISTIC = "does not have a deterministic implementation"
_SECONDS_FOR_THE_FIRST_PROCESS = 3.0
_BROKEN_PIPE_STATUS = 128 + 13  # what the shell reports of a program that SIGPIPE ended


@dataclass(frozen=True)
class Arguments:
    """The command line, read."""

    config_path: Path
    options: Options = field(default_factory=Options)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see rmldnn --help")


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Reads the command line; ``--help`` and ``--version`` print and leave with ``SystemExit``.

    Raises:
        UsageError: it is wrong.
    """
    parser = _Parser(
        prog="rmldnn", description="Train or run the network that a configuration describes.", allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="configuration file (JSON)")
    parser.add_argument("file", nargs="?", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--app", default="dnn", help="dnn or segmentation; both do the same here (default: dnn)")
    parser.add_argument(
        "--seed", help=f"seed of weights, sample order and random transforms (default: ${SEED_VARIABLE}, else 0)"
    )
    parser.add_argument("--deterministic", action="store_true", help="fail on operations that are not deterministic")
    parser.add_argument(
        "--precision",
        help=f"float32, bf16, or auto: bf16 if the device supports it (default: ${PRECISION_VARIABLE}, else auto)",
    )
    parser.add_argument(
        "--cuda-graphs",
        action=argparse.BooleanOptionalAction,
        help=f"on a GPU, launch each training step as a whole; not yet tried on one (default: ${CUDA_GRAPHS_VARIABLE}, "
        "1 or 0, else no)",
    )
    parser.add_argument("--version", action="version", version=f"rmldnn-torch {__version__}")
    options = parser.parse_args(arguments)
    if canonical_name(options.app, _APPLICATIONS) is None:
        raise UsageError(
            f"--app={options.app} is not in this engine: use {' or '.join(_APPLICATIONS)}, or leave it out"
        )
    # The published tutorials also write "--config= FILE".
    paths = [path for path in (options.config, options.file) if path]
    if len(paths) != 1 or options.config is None:
        raise UsageError("give one configuration: rmldnn --config=FILE")
    return Arguments(
        Path(paths[0]),
        Options(
            _seed(options.seed),
            options.deterministic,
            _precision(options.precision),
            _uses_cuda_graphs() if options.cuda_graphs is None else options.cuda_graphs,
        ),
    )


def _seed(option: str | None) -> int:
    text = os.environ.get(SEED_VARIABLE, "0") if option is None else option
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise UsageError(f"the seed {text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def _precision(option: str | None) -> PrecisionChoice:
    text = os.environ.get(PRECISION_VARIABLE, "auto") if option is None else option
    for choice in PRECISION_CHOICES:
        if text == choice:
            return choice
    raise UsageError(f"the precision {text!r} is none of {', '.join(PRECISION_CHOICES)}")


def _uses_cuda_graphs() -> bool:
    text = os.environ.get(CUDA_GRAPHS_VARIABLE, "0")
    if text not in {"0", "1"}:
        raise UsageError(f"{CUDA_GRAPHS_VARIABLE} is {text!r}: set it to 1 or 0")
    return text == "1"


def main(arguments: Sequence[str]) -> int:
    """Runs the engine; gives the exit status."""
    log = Log()
    try:
        return _main(arguments, log)
    except Terminated as error:
        return _end(log, f"Stopped by {error.signal.name}.", error.exit_status)
    except BrokenPipeError:
        return _end_quietly()


def _main(arguments: Sequence[str], log: Log) -> int:
    launch, document = Launch(), None
    try:
        parsed = parse_arguments(arguments)
        launch = read_launch()
        log.silent = launch.rank != 0
        document = read_configuration(parsed.config_path).neural_network
        _run(document, parsed.options, launch, log)
    except BrokenPipeError:
        raise
    except OtherProcessEnded:
        return _end(log, "Another process of this run has ended, and told why.", ExitStatus.UNEXPECTED)
    except Exception as error:  # noqa: BLE001 - every error ends here, as one line
        return _fail(error, document, launch, log)
    return ExitStatus.OK


def _run(document: NeuralNetwork, options: Options, launch: Launch, log: Log) -> None:
    if importlib.util.find_spec("torch") is None:
        raise DeviceError(
            "this engine needs PyTorch: pip install 'rml-optimization[engine]', or '.[engine]' in a checkout"
        )
    from rmldnn_torch.run import run  # torch takes a second, which --help need not wait for

    run(document, options, launch, log)


def _fail(error: Exception, document: NeuralNetwork | None, launch: Launch, log: Log) -> int:
    known = as_engine_error(error)
    if log.silent:
        # Mostly the first process fails alike and tells, whereupon mpirun ends them all. What this process
        # alone knows, it says when the first has had its time.
        time.sleep(_SECONDS_FOR_THE_FIRST_PROCESS)
        log.silent = False
    if known is not None:
        return _end(log, Failure(" ".join(str(known).split())).format(), known.exit_status)
    path = _write_traceback(error, document, launch.rank)
    message = f"unexpected {type(error).__name__} in the engine; {path} tells where"
    return _end(log, Failure(message).format(), ExitStatus.UNEXPECTED)


def as_engine_error(error: Exception) -> EngineError | None:
    """The error as one that a person can mend; None if it is none."""
    if isinstance(error, EngineError):
        return error
    if means_disk_full(error):
        return OutputError(f"no space left on the disk: {error}")
    if _NOT_DETERMINISTIC in str(error):
        return HyperparameterError(
            "with --deterministic torch lacks an operation of this loss or network on this device: leave it out, or "
            "take another loss"
        )
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return MemoryExhaustedError("the memory does not suffice: choose a smaller batch_size, images or network")
    return None


def _write_traceback(error: Exception, document: NeuralNetwork | None, rank: int) -> str:
    """Keeps the traceback in a file beside the outfile, or on standard error; gives the place."""
    name = "rmldnn_traceback.log" if rank == 0 else f"rmldnn_traceback_{rank + 1}.log"
    outfile = None if document is None else document.outfile
    path = Path(name) if outfile is None else Path(outfile).with_name(name)
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        sys.stderr.write(text)
        return "standard error"
    return f"the traceback in {path}"


def _end(log: Log, line: str, status: int) -> int:
    """Prints a last line, on standard error where standard output takes none."""
    try:
        log.line(line)
    except BrokenPipeError:
        _abandon_standard_output()
    except OutputError:
        _abandon_standard_output()
        sys.stderr.write(line + "\n")
    return status


def _end_quietly() -> int:
    """Nobody reads the log any more: an end like any other command's at the head of a pipe."""
    _abandon_standard_output()
    return _BROKEN_PIPE_STATUS


def _abandon_standard_output() -> None:
    """Else Python would try to write what is left once more when it ends, complain, and change the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
