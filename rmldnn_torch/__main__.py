"""``rmldnn --config=FILE``, also ``python -m rmldnn_torch --config=FILE``."""

from __future__ import annotations

import sys


def main() -> int:
    """The command; gives the exit status."""
    from rmldnn_torch.allocator import keep_freed_memory
    from rmldnn_torch.termination import end_on_signals

    end_on_signals()
    keep_freed_memory()

    from rmldnn_torch.command_line import main as run_command_line

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
