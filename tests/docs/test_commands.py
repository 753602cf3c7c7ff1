"""Every command of README and of the documentation is run, page by page, or stands in a table with its reason."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rml_optimization import app
from rml_search.space_file import read_search_space
from rmldnn_contract.config import parse_configuration

from .conftest import CHECKOUT, PAGES
from .page_blocks import Block
from .tables import AFTER_A_SEARCH, IN_DOCKER, NOT_RUN, SMALLER, SNIPPETS_NOT_RUN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OURS = re.compile(r"(rml-optimization|python rml_optimization\.py) (?P<arguments>.*)")


def smaller(text: str) -> str:
    """The text with the table's replacements."""
    for words, fewer in SMALLER.items():
        text = f"{text} ".replace(words, fewer)[:-1] if words.endswith(" ") else text.replace(words, fewer)
    return text


def is_not_run(command: str) -> bool:
    return command in NOT_RUN or command in IN_DOCKER


def write_file(block: Block, folder: Path) -> None:
    """A block that is a file: under the name that its caption says, and what it holds must be valid."""
    text = smaller(block.text)
    name = block.file_name or {"json": "config.json", "toml": "space.toml"}[block.language]
    (folder / name).write_text(text, encoding="utf-8")
    if block.language == "toml":
        assert read_search_space(folder / name)
    else:
        parse_configuration(text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_can_be_typed(page, documentation, make_sandbox):
    content = documentation.pages[page]
    runs = [block for block in content.blocks if block.is_console or block.language in {"python", "json", "toml"}]
    if all(block.is_console and all(map(is_not_run, block.commands())) for block in runs):
        return
    prepares_data = any("--out data" in command for command in content.commands())
    sandbox = make_sandbox("searched" if page in AFTER_A_SEARCH else "template", not prepares_data)
    for block in runs:
        if block.is_console:
            for command in block.commands():
                if not is_not_run(command):
                    sandbox.run("bash", "-c", smaller(command))
        elif block.language == "python":
            if not SNIPPETS_NOT_RUN.keys() & {line.strip() for line in block.text.splitlines()}:
                sandbox.run("python", "-c", block.text)
        else:
            write_file(block, sandbox.folder)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", ["README", "how-to/containers"])
def test_what_a_page_says_of_docker_can_be_typed(page, documentation, make_sandbox, docker_image):
    assert docker_image == "rmldnn-torch:latest"
    sandbox = make_sandbox("searched", True)
    commands = [IN_DOCKER[command] for command in documentation.pages[page].commands() if command in IN_DOCKER]
    assert commands
    for command in commands:
        sandbox.run("bash", "-c", command)


# --- the tables are of today's pages -----------------------------------------------------------------


@pytest.mark.slow
def test_no_entry_of_a_table_is_out_of_date(documentation):
    commands = {command for page in documentation.pages.values() for command in page.commands()}
    texts = [block.text for page in documentation.pages.values() for block in page.blocks]
    spaced = [f"{text} " for text in (*commands, *texts)]
    assert NOT_RUN.keys() - commands == set()
    assert IN_DOCKER.keys() - commands == set()
    assert [words for words in SMALLER if not any(words in text for text in spaced)] == []
    assert [line for line in SNIPPETS_NOT_RUN if not any(line in text for text in texts)] == []


@pytest.mark.slow
def test_every_page_with_docker_commands_has_its_test(documentation):
    pages = {name for name, page in documentation.pages.items() if IN_DOCKER.keys() & set(page.commands())}
    assert pages == {"README", "how-to/containers"}


# --- what is not run is parsed -----------------------------------------------------------------------


def parse_ours(arguments: list[str]) -> None:
    """Raises the parser's errors: options that do not exist, or values that they cannot take."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("rml-optimization", list(arguments))
    rest = [*context._protected_args, *context.args]
    if rest:
        name, command, inner = group.resolve_command(context, rest)
        command.make_context(name, inner, parent=context)


def check_words(command: str) -> None:
    """What can be said of a command without running it."""
    words = shlex.split(command)
    if match := _OURS.fullmatch(command):
        arguments = [word for word in shlex.split(match["arguments"]) if word != "..."]
        if arguments == ["--install-completion"]:  # parsed, it would change the shell of the person who tests
            assert arguments[0] in known_options()
        else:
            parse_ours(arguments)
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:.*## ", makefile, re.MULTILINE) for target in targets), command
    elif words[0] == "pip":
        extras = re.findall(r"[\w-]+(?=[,\]])", words[-1])
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert set(extras) <= project["optional-dependencies"].keys(), command
    else:
        assert words[0] in {"apptainer", "docker", "optuna-dashboard", "python", "source"}, command


@pytest.mark.parametrize("command", [*NOT_RUN, *IN_DOCKER])
def test_what_is_not_run_is_understood(command):
    check_words(command)


@pytest.mark.parametrize(
    "command", ["rml-optimization --no-such-option 1", "rml-optimization infer --num-trials 3", "make nothing"]
)
def test_what_is_wrong_is_not_understood(command):
    with pytest.raises((typer.TyperException, AssertionError)):
        check_words(command)


# --- words in code within sentences ------------------------------------------------------------------


def known_options() -> set[str]:
    """Names of the options of all commands, and of the engine's."""
    group: Any = typer.main.get_command(app)
    ours = {
        name
        for command in (group, *group.commands.values())
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return {*ours, "--help", "--precision", "--deterministic", "--cuda-graphs", "--app"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_options_in_a_sentence_exist(page, documentation):
    options = known_options()
    for literal in documentation.pages[page].literals:
        if literal.startswith("--"):
            named = {word.partition("=")[0] for word in literal.split() if word.startswith("--")}
            assert named <= options, literal
        elif (match := _OURS.fullmatch(literal)) and "..." not in literal:
            parse_ours(shlex.split(match["arguments"]))


@pytest.mark.slow
def test_blocks_are_told_apart(documentation):
    """No block with commands hides behind a language that is not looked at."""
    languages = {block.language for page in documentation.pages.values() for block in page.blocks}
    assert languages <= {"console", "default", "json", "python", "text", "toml"}
    for page in documentation.pages.values():
        for block in page.blocks:
            if not block.is_console:
                assert not any(line.startswith("$ ") for line in block.text.splitlines()), block.text


def test_commands_are_read_as_a_shell_reads_them():
    text = "$ make demo      # a comment\n$ python a.py --x 1 \\\n       --y '#2'\n  output\n$ b"
    assert Block("console", text).commands() == ["make demo", "python a.py --x 1 --y '#2'", "b"]
    assert Block("default", "docker run \\\n  IMAGE").commands() == ["docker run IMAGE"]
    assert not Block("default", "Number of finished trials: 6").is_console
    assert json.loads(Block("json", "{}").text) == {}
