"""What stands in a page that can be run: its code blocks, as Sphinx has read them, and the commands in these."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes

#: What begins a command in a block that says no language.
PROGRAMS = frozenset(
    {"apptainer", "docker", "git", "make", "pip", "python", "rml-optimization", "rmldnn", "sbatch", "singularity"}
)
_COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """A block of code: its language (``default`` where the page names none), and the file that it is, if it is one."""

    language: str
    text: str
    file_name: str | None = None

    @property
    def is_console(self) -> bool:
        """Whether it holds commands."""
        words = self.text.split(maxsplit=1)
        return self.language == "console" or (
            self.language == "default" and bool(words) and (words[0] == "$" or words[0] in PROGRAMS)
        )

    def commands(self) -> list[str]:
        """The commands, each in one line with single spaces and without its comment; output is passed over.

        A line after ``$`` begins one, and a backslash at its end continues it.
        """
        lines = self.text.splitlines()
        if not any(line.startswith("$ ") for line in lines):
            lines[0] = f"$ {lines[0]}"
        found: list[str] = []
        goes_on = False
        for line in lines:
            if line.startswith("$ "):
                found.append("")
            elif not goes_on:
                continue
            words = _COMMENT.sub("", line.removeprefix("$ ")).rstrip()
            goes_on = words.endswith("\\")
            found[-1] = " ".join([found[-1], *words.removesuffix("\\").split()]).strip()
        return found


@dataclass(frozen=True)
class PageContent:
    """The blocks of a page in their order, its words in code, and the rows of its tables."""

    blocks: tuple[Block, ...]
    literals: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  #: of all its tables

    def commands(self) -> Iterator[str]:
        """All commands of its blocks."""
        return (command for block in self.blocks if block.is_console for command in block.commands())


def read_page(doctree: Path) -> PageContent:
    """Reads a page that Sphinx has kept as a pickle."""
    with doctree.open("rb") as file:
        document: nodes.document = pickle.load(file)
    blocks = [
        Block(node.get("language", "default"), node.astext(), _caption(node))
        for node in document.findall(nodes.literal_block)
    ]
    rows = [tuple(entry.astext() for entry in row.findall(nodes.entry)) for row in document.findall(nodes.row)]
    # Sphinx itself checks those that refer to an option.
    words = [node.astext() for node in document.findall(nodes.literal) if "std-option" not in node["classes"]]
    return PageContent(tuple(blocks), tuple(words), tuple(rows))


def _caption(node: nodes.literal_block) -> str | None:
    siblings = node.parent.children if isinstance(node.parent, nodes.container) else []
    return next((sibling.astext() for sibling in siblings if isinstance(sibling, nodes.caption)), None)
