"""``rmldnn --config=FILE``, also ``python -m rmldnn_torch --config=FILE``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command; ends the process with its exit status."""
    from rmldnn_torch.allocator import keep_freed_memory
    from rmldnn_torch.openmp import wait_briefly
    from rmldnn_torch.termination import end_on_signals, leave

    end_on_signals()
    keep_freed_memory()
    wait_briefly()

    from rmldnn_torch.command_line import main as run_command_line

    leave(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
