"""The built pages: the reference says what the code says, and a browser shows each of them without help."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import typer.main

from rml_commands.program import BROKEN_PIPE
from rml_optimization import app
from rml_search.crash import UNEXPECTED
from rml_search.errors import SearchError
from rml_search.interruption import _SIGNALS
from rml_search.paths import Workspace
from rmldnn_contract.config import Checkpoints, Loss, NeuralNetwork
from rmldnn_contract.data import TRANSFORMS, Data, Slicer
from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.optimizer import OPTIMIZERS, SCHEDULERS

from ..browser import headless_chromium
from .conftest import PAGES, README

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


# --- the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        # From RocketML's documentation of its configuration, and what a value of these can be.
        ("num_epochs", "whole number, at least 1", "1"),
        ("batch_size", "whole number, at least 1", "64"),
        ("beta1", "number, at least 0 and below 1", "0.9"),
        ("beta2", "number, at least 0 and below 1", "0.999"),
        ("alpha", "number, at least 0 and at most 1", "0.99"),
        ("eta", "number, above 0", "0.001"),
        ("max_func_eval", "whole number, at least 1", "4000"),
        ("relative_tolerance", "number, at least 0", "1e-08"),
        ("start_factor", "number, above 0 and at most 1", "required"),
        ("milestones", "list of whole numbers, at least 1", "required"),
        ("target_is_mask", "true or false", "false"),
        ("type", '"images", "labels", "numpy", "hdf5"', "absent"),
        ("source", '"sigmoid", "softmax", "log_softmax"', "absent"),
        ("layers", "text or list of objects", "required"),
        ("sizes", "list of whole numbers, at least 1", "required"),
        ("ignore_index", "whole number, at least -16777216 and at most 16777216", "absent"),
    ],
    ids=lambda row: row[0],
)
def test_a_key_stands_with_its_value_and_default(row, documentation):
    assert row in {cells[:3] for cells in documentation.pages["reference/configuration"].rows}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resize", "list of 2 whole numbers, at least 1"),
        ("random_zoom", "number, at least 0 and below 1"),
        ("rotate", "number"),
        ("random_patches", "object: number (whole number, at least 1), size (whole number, at least 1)"),
    ],
)
def test_a_transform_stands_with_its_value(name, value, documentation):
    assert (name, value) in {cells[:2] for cells in documentation.pages["reference/configuration"].rows}


def test_every_key_of_the_configuration_is_explained(documentation):
    explained = {cells[0] for cells in documentation.pages["reference/configuration"].rows if cells[-1].strip()}
    sections = (NeuralNetwork, Checkpoints, Data, Slicer, Loss, *OPTIMIZERS.values(), *SCHEDULERS.values())
    assert {key for section in sections for key in section.model_fields} <= explained
    assert set(TRANSFORMS) <= explained


def test_every_option_of_every_command_has_its_place(documentation):
    text = (documentation.html / "reference" / "command-line.html").read_text(encoding="utf-8")
    places = set(re.findall(r'id="cmdoption-([\w-]+)"', text))
    group: Any = typer.main.get_command(app)
    for name, command in (("", group), *group.commands.items()):
        program = f"rml-optimization-{name}".rstrip("-")
        for option in [
            name
            for parameter in command.params
            if parameter.param_type_name == "option"
            for name in (*parameter.opts, *parameter.secondary_opts)
        ]:
            # Sphinx leaves "-lr-min" its first hyphen's place: the identifier ends with the name.
            assert any(place.startswith(program) and place.endswith(option.strip("-")) for place in places), option


def all_errors(kind: type[SearchError]) -> set[type[SearchError]]:
    return {kind}.union(*(all_errors(each) for each in kind.__subclasses__()))


def test_every_exit_code_is_explained_and_no_other(documentation):
    listed = [int(cells[0]) for cells in documentation.pages["reference/exit-codes"].rows if cells[0].isdecimal()]
    assert len(listed) == len(set(listed))
    from_errors = {error.exit_code for error in all_errors(SearchError)}
    from_signals = {128 + number for number in _SIGNALS}
    assert set(listed) == from_errors | set(map(int, ExitStatus)) | from_signals | {UNEXPECTED, BROKEN_PIPE}


def test_every_file_of_a_search_is_explained(documentation, searched):
    """Those that a real search has left, and those that options ask for."""
    literals = documentation.pages["reference/files"].literals
    workspace = Workspace(searched)
    left = {path.name for path in (*workspace.results(), *workspace.best_model.iterdir(), workspace.lock)}
    left |= {path.name for path in workspace.trial(0).folder.iterdir()}
    left -= {f"study.db{ending}" for ending in ("-journal", "-wal", "-shm")}
    assert "best_model_file.pt.sha256" in left
    assert "rmldnn.log" in left
    for name in left:
        assert any(name in PurePosixPath(literal).parts for literal in literals), name


def test_the_keys_of_list_acc_are_those_that_a_search_writes(documentation, searched):
    (record,) = json.loads(Workspace(searched).list_acc.read_text(encoding="utf-8"))
    explained = {cells[0] for cells in documentation.pages["reference/files"].rows}
    assert record.keys() <= explained


# --- in a browser ------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_pages_need_no_network_and_fit_a_phone(documentation, tmp_path):
    with headless_chromium(tmp_path) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        for name in PAGES:
            if name == README:
                continue
            browser.get((documentation.html / f"{name}.html").as_uri())
            width = browser.execute_script("return document.documentElement.scrollWidth")
            assert width == PHONE["width"], name
            broken = "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)"
            assert browser.execute_script(broken) == [], name
        assert [entry["message"] for entry in browser.get_log("browser")] == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked_for = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked_for) > len(PAGES)
    # The browser's own pages, chrome://, are none of ours.
    assert [address for address in asked_for if not address.startswith(("file:", "data:", "chrome:"))] == []


def test_links_within_the_pages_lead_somewhere(documentation):
    """Sphinx checks its own references; this also finds files that are linked to and not copied."""
    for page in documentation.html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src)="([^"#?]+)', text):
            if "://" not in target and not target.startswith(("data:", "mailto:")):
                assert Path(page.parent, target).exists(), f"{page.name}: {target}"
