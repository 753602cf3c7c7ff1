"""Pieces of reStructuredText."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Text as it is, whatever it holds that reStructuredText takes for markup."""
    return "".join(f"\\{character}" if character in "\\*`|_<" else character for character in text)


def code(text: str) -> str:
    """A literal."""
    return f"``{text}``"


def heading(text: str, underline: str) -> list[str]:
    """A section's title."""
    return [text, underline * len(text), ""]


def paragraph(text: str) -> list[str]:
    """Lines of text and the empty one after them."""
    return [*text.splitlines(), ""]


def table(columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]], name: str) -> list[str]:
    """A table: of each column its heading and its share of the width; ``name`` is its class on the page."""
    lines = [
        ".. list-table::",
        f"   :class: {name}",
        "   :header-rows: 1",
        f"   :widths: {' '.join(str(width) for _, width in columns)}",
        "",
    ]
    for row in ([head for head, _ in columns], *rows):
        for mark, cell in zip("*" + " " * len(row), row, strict=False):
            first, *rest = cell.splitlines() or [""]
            lines += [f"   {mark} - {first}".rstrip(), *(f"       {line}".rstrip() for line in rest)]
    return [*lines, ""]
