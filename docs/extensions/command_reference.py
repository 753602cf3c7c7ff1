"""All commands with their options, as the program's own parser knows them."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import typer.main

from rml_optimization import app
from rst import escaped, heading, paragraph

PROGRAM = "rml-optimization"


def command_reference() -> str:
    """A section for the search and for each other command: what it does, its arguments and its options."""
    group: Any = typer.main.get_command(app)
    context = group.make_context(PROGRAM, [], resilient_parsing=True)
    lines = _section("search", PROGRAM, group, context)
    for name, command in group.commands.items():
        program = f"{PROGRAM} {name}"
        inner = command.make_context(program, [], parent=context, resilient_parsing=True)
        lines += _section(name, program, command, inner)
    return "\n".join(lines)


def _section(name: str, program: str, command: Any, context: Any) -> list[str]:
    lines = [*heading(name, "-"), f".. program:: {program}", ""]
    lines += paragraph(_with_code(cleandoc(command.callback.__doc__ or command.help)))
    for parameter in command.params:
        names, explanation = parameter.get_help_record(context)
        if parameter.param_type_name == "argument":
            lines += _option(parameter.metavar, explanation)
        else:
            # A switch and its opposite have a slash between them there, and a comma in Sphinx's directive.
            lines += _option(names.replace(" / ", ", "), explanation)
    return lines


def _option(names: str, explanation: str) -> list[str]:
    return [f".. option:: {names}", "", f"   {escaped(explanation)}", ""]


def _with_code(text: str) -> str:
    """Text in which single backticks stand around code, as terminals show it."""
    parts = text.split("`")
    return "".join(f"``{part}``" if place % 2 else escaped(part) for place, part in enumerate(parts))
