"""How a run of the engine ends: its exit codes, and the exceptions that lead to them.

RocketML's rmldnn publishes no exit codes but 0 ("All done (return value = 0)."), so the codes of our
engine lie in the range of ``sysexits.h`` (64 to 78), which a foreign program seldom uses: a driver
that reads one of them knows what went wrong without reading the message.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit codes of the engine."""

    OK = 0
    USAGE = 64  #: the command line is wrong
    DATA = 65  #: images or masks are missing, unreadable, or do not pair
    NETWORK = 66  #: the network file is missing, broken, or does not fit the data
    CHECKPOINT = 67  #: the file to load is missing or no checkpoint of this network
    HYPERPARAMETERS = 68  #: an optimizer, loss or scheduler that the engine lacks or that does not fit
    DEVICE = 69  #: the device that was asked for is not there
    UNEXPECTED = 70  #: an error of the engine itself; the traceback is in its log
    OUT_OF_MEMORY = 71  #: the batch does not fit into memory
    CANNOT_WRITE = 73  #: a log, checkpoint or prediction could not be written
    DIVERGED = 75  #: the loss is no longer a finite number
    CONFIGURATION = 78  #: the configuration document is missing or not valid

    @property
    def depends_on_hyperparameters(self) -> bool:
        """Whether another optimizer, loss or learning rate could end otherwise.

        A search goes on after such a failure; after any other every trial would fail alike.
        """
        return self in _DEPEND_ON_HYPERPARAMETERS


_DEPEND_ON_HYPERPARAMETERS = frozenset(
    {
        ExitStatus.HYPERPARAMETERS,
        ExitStatus.UNEXPECTED,
        ExitStatus.OUT_OF_MEMORY,
        ExitStatus.DIVERGED,
    }
)


class EngineError(Exception):
    """An error that a person can mend: one line that says what is wrong and what to do."""

    exit_status = ExitStatus.UNEXPECTED


class UsageError(EngineError):
    """The command line is wrong."""

    exit_status = ExitStatus.USAGE


class ConfigurationError(EngineError):
    """The configuration document is missing, is not JSON, or has an invalid key or value."""

    exit_status = ExitStatus.CONFIGURATION


class DataError(EngineError):
    """Images or masks are missing, unreadable or not paired."""

    exit_status = ExitStatus.DATA


class NetworkError(EngineError):
    """The network file is missing or broken, has an unsupported layer, or does not fit the data."""

    exit_status = ExitStatus.NETWORK


class CheckpointError(EngineError):
    """The file to load is missing or is not a checkpoint of this network."""

    exit_status = ExitStatus.CHECKPOINT


class HyperparameterError(EngineError):
    """The optimizer, loss or scheduler is not supported, or does not fit the network and data."""

    exit_status = ExitStatus.HYPERPARAMETERS


class DeviceError(EngineError):
    """The requested device is not available."""

    exit_status = ExitStatus.DEVICE


class MemoryExhaustedError(EngineError):
    """The batch does not fit into the memory of the device or machine."""

    exit_status = ExitStatus.OUT_OF_MEMORY


class OutputError(EngineError):
    """A log, checkpoint or prediction could not be written."""

    exit_status = ExitStatus.CANNOT_WRITE


class DivergedError(EngineError):
    """The loss is no longer a finite number."""

    exit_status = ExitStatus.DIVERGED
