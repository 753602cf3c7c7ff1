"""``rmldnn --config=FILE``, also ``python -m rmldnn_torch --config=FILE``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command; ends the process with its exit status."""
    from rmldnn_torch.allocator import keep_freed_memory
    from rmldnn_torch.openmp import wait_briefly
    from rmldnn_torch.termination import end_on_signals

    end_on_signals()
    keep_freed_memory()
    wait_briefly()

    from rmldnn_torch.command_line import main as run_command_line

    _leave(run_command_line(sys.argv[1:]))


def _leave(status: int) -> NoReturn:
    """Ends the process without tearing down its libraries.

    By now all files are written and closed. Of several processes one in ten aborted in that teardown ("terminate
    called without an active exception"), when a thread of gloo was still there, and with it the whole run failed.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)


if __name__ == "__main__":
    main()
