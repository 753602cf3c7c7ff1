"""What a person is told of an error that nobody foresaw."""

from __future__ import annotations

import errno
import tempfile
import traceback
from pathlib import Path

from rml_search.errors import WriteError

UNEXPECTED = 70

_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def explain_unexpected(error: Exception) -> tuple[str, int]:
    """One line and an exit code; the traceback goes to a file, unless the system has refused a file to us."""
    refusal = _refusal(error)
    if refusal is not None:
        return f"{refusal}; finished work is kept", WriteError.exit_code
    text = "".join(traceback.format_exception(error))
    return f"unexpected {type(error).__name__}: {error}; the traceback is in {_keep(text)}", UNEXPECTED


def _refusal(error: BaseException | None) -> str | None:
    """Follows the chain of causes down to what the system said: SQLAlchemy and Optuna wrap their errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS and error.strerror:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        if "database or disk is full" in str(error):
            return "No space left on device: study.db"
        error = error.__cause__ or error.__context__
    return None


def _keep(text: str) -> Path:
    """Writes the traceback into the current folder, or where temporary files go."""
    path = Path("rml_optimization_error.log")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        with tempfile.NamedTemporaryFile("w", prefix="rml_optimization_", suffix=".log", delete=False) as file:
            file.write(text)
        return Path(file.name)
    return path
