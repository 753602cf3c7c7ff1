"""Directives that write the reference from the code, so that it cannot say anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from sphinx.util.docutils import SphinxDirective

from command_reference import command_reference
from configuration_reference import configuration_reference
from exit_code_reference import exit_code_reference

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


class _FromTheCode(SphinxDirective):
    write: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """What ``write`` returns, parsed as a part of the page."""
        return self.parse_text_to_nodes(type(self).write(), allow_section_headings=True)


class CommandReference(_FromTheCode):
    """``.. command-reference::``"""

    write = staticmethod(command_reference)


class ConfigurationReference(_FromTheCode):
    """``.. configuration-reference::``"""

    write = staticmethod(configuration_reference)


class ExitCodeReference(_FromTheCode):
    """``.. exit-code-reference::``"""

    write = staticmethod(exit_code_reference)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-reference", CommandReference)
    app.add_directive("configuration-reference", ConfigurationReference)
    app.add_directive("exit-code-reference", ExitCodeReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
