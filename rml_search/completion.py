"""What a shell offers after an option that takes a list; what takes a file or one of a few names needs no help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

#: What any shell takes as it stands.
_UNSAFE = re.compile(r"[^\w@%+=:,./-]")


def complete_names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes the last name of a comma-separated list; names that stand there already are not offered again."""

    def complete(incomplete: str) -> list[str]:
        head, comma, last = incomplete.rpartition(",")
        taken = {name.strip().lower() for name in head.split(",")}
        # As they are spelled in results, or as in rmldnn's own documents for those who begin so.
        names = [name.lower() for name in known] + ([*known] if last else [])
        offered = dict.fromkeys(name for name in names if name.startswith(last) and name.lower() not in taken)
        return [f"{head}{comma}{name}" for name in offered]

    return complete


def complete_files(incomplete: str) -> list[str]:
    """Completes the last file of a comma-separated list; the first is left to the shell, which does it better."""
    head, comma, last = incomplete.rpartition(",")
    if not comma:
        return []
    found = sorted(_matches(last))
    if len(found) == 1 and found[0].endswith("/"):  # no shell goes on by itself within a list
        found += sorted(_matches(found[0]))
    return [head + comma + _UNSAFE.sub(r"\\\g<0>", name) for name in found]


def _matches(start: str) -> Iterator[str]:
    """The paths that begin with ``start``, folders with a slash at their end."""
    folder, slash, name = start.rpartition("/")
    try:
        for path in Path(folder + slash or ".").iterdir():
            is_hidden = path.name.startswith(".") and not name
            if path.name.startswith(name) and not is_hidden:
                yield f"{folder}{slash}{path.name}" + "/" * path.is_dir()
    except OSError:
        return
