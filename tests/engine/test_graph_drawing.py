"""The drawing of a network: what stands in it, and that every name survives Graphviz's quoting."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rmldnn_contract.exit_status import OutputError
from rmldnn_torch.command_line import main
from rmldnn_torch.graph_drawing import draw, drawing_path, write_drawing
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network

from .test_keras_graph import diamond, layer
from .test_network import called_twice, chain
from .test_trainer import Written


def test_a_branched_network() -> None:
    assert draw(Network(read_network(diamond()))).splitlines() == [
        'digraph "diamond" {',
        "  node [shape=box]",
        r'  "data" [label="data\nInputLayer\n? x 16 x 3"]',
        r'  "left" [label="left\nConv2D\n? x 16 x 4", style=dashed]',
        r'  "right" [label="right\nConv2D, relu\n? x 16 x 4"]',
        r'  "sum" [label="sum\nAdd\n? x 16 x 4"]',
        '  "data" -> "left"',
        '  "data" -> "right"',
        '  "right" -> "sum"',
        '  "left" -> "sum"',
        "}",
    ]


def test_each_call_of_a_shared_layer_is_drawn() -> None:
    assert re.findall(r'"(.+)" -> "(.+)"', draw(called_twice())) == [
        ("data", "conv"),
        ("conv", "conv/call_2"),
        ("conv/call_2", "norm"),
    ]


NAMES = ['a "quoted" name', "back\\slash\\", "line\nbreak", "größe", "->", "<b>", "}", "nul\0"]


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's own reader is not installed")
def test_graphviz_reads_names_of_any_kind(tmp_path: Path) -> None:
    write_drawing(tmp_path / "network.dot", chain(*(layer("ReLU", name) for name in NAMES)))
    command = ["dot", "-Tplain", str(tmp_path / "network.dot")]
    plain = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(re.findall("^node ", plain, re.MULTILINE)) == len(NAMES) + 1
    assert len(re.findall("^edge ", plain, re.MULTILINE)) == len(NAMES)


def test_quotes_and_backslashes_are_escaped_and_control_characters_left_out() -> None:
    drawing = draw(chain(*(layer("ReLU", name) for name in NAMES)))
    for node in (r'"a \"quoted\" name"', r'"back\\slash\\"', r'"line\nbreak"', '"größe"', '"nul?"'):
        assert f"  {node} [label=" in drawing


@pytest.mark.parametrize(
    ("outfile", "path"),
    [("out.txt", "out_network.dot"), ("runs/one.txt", "runs/one_network.dot"), (None, "network.dot")],
)
def test_where_the_drawing_goes(outfile: str | None, path: str) -> None:
    assert drawing_path(outfile) == Path(path)


def test_debug_writes_the_drawing(written: Written) -> None:
    config_path = written({"debug": True, "num_epochs": 1})
    assert main([f"--config={config_path}"]) == 0
    assert '"conv1" -> "conv2"' in Path("out_network.dot").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_drawing(tmp_path / "file" / "network.dot", chain(layer("ReLU", "relu")))
