"""The command line as a program: how it is called, and how whatever ends it becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from rml_search.errors import SearchError
from rml_search.interruption import Interrupted, interruptible

_INSTALLED_NAME = "rml-optimization"
BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE has ended


def run_program(app: typer.Typer) -> NoReturn:
    """Runs the command line and ends the process: errors that a person can mend become one line and an exit code."""
    from rmldnn_contract.exit_status import EngineError

    try:
        with interruptible():
            sys.exit(app(standalone_mode=False, prog_name=_program_name(sys.argv)))
    except SearchError as error:
        _fail(str(error), error.exit_code)
    except EngineError as error:
        _fail(str(error), int(error.exit_status))
    except Interrupted as error:
        _end(error.line, error.exit_code)
    except typer.TyperException as error:
        _fail(f"{error.format_message()} (see --help)", error.exit_code)
    except BrokenPipeError:
        _end_unread()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer has caught it
            _end_unread()
        raise
    except Exception as error:  # noqa: BLE001 - told in one line, with the traceback in a file
        from rml_search.crash import explain_unexpected

        _fail(*explain_unexpected(error))


def _program_name(arguments: Sequence[str]) -> str | None:
    """As the person types it where it is installed; None: Typer finds out how else it was started."""
    # A shell completes programs, and never what stands behind "python".
    is_for_a_shell = not {"--install-completion", "--show-completion"}.isdisjoint(arguments[1:])
    return _INSTALLED_NAME if is_for_a_shell or Path(arguments[0]).name == _INSTALLED_NAME else None


def _end_unread() -> NoReturn:
    """Nobody reads what is printed; Python would complain once more when it flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(BROKEN_PIPE)


def _fail(message: str, exit_code: int) -> NoReturn:
    _end(f"Error: {' '.join(message.split())}", exit_code)


def _end(line: str, exit_code: int) -> NoReturn:
    with suppress(OSError):  # the terminal may be gone, which is why the program ends
        typer.echo(line, err=True)
    sys.exit(exit_code)
