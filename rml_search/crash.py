"""What a person is told of an error that nobody foresaw."""

from __future__ import annotations

import errno
import traceback

from rml_search.errors import WriteError
from rml_search.paths import Workspace

UNEXPECTED = 70

_CANNOT_WRITE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


def explain_unexpected(error: Exception, workspace: Workspace) -> tuple[str, int]:
    """One line and an exit code; the traceback goes to a file unless the disk is to blame."""
    reason = _why_not_written(error)
    if reason is not None:
        return f"{reason}; what had finished is kept", WriteError.exit_code
    text = "".join(traceback.format_exception(error))
    try:
        workspace.crash_log.write_text(text, encoding="utf-8")
        where = f"; its traceback is in {workspace.crash_log}"
    except OSError:
        where = f"\n{text}"
    return f"unexpected {type(error).__name__}: {error}{where}", UNEXPECTED


def _why_not_written(error: BaseException | None) -> str | None:
    """Follows the chain of causes down to a refusal of the disk: SQLAlchemy and Optuna wrap theirs."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
            name = f" ({error.filename})" if error.filename else ""
            return f"cannot write: {_CANNOT_WRITE[error.errno]}{name}"
        if "database or disk is full" in str(error):
            return "cannot write study.db: the disk is full"
        error = error.__cause__ or error.__context__
    return None
