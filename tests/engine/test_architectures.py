"""The builders of network files: the published figures, and the files that lie at the top level."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rmldnn_torch.architectures import ARCHITECTURES, main, resunet, small_unet, to_json
from rmldnn_torch.keras_graph import count_operations, read_network
from rmldnn_torch.network import Network, ParameterCounts, count_parameters

from .formula_weights import formula_input, formula_weight
from .keras_references_reader import FOLDER
from .published_networks import keras_shape

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def resunet_network() -> Network:
    return Network(read_network(resunet()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_files_of_the_project_are_what_the_builders_write(name: str) -> None:
    assert (CHECKOUT / f"layers_{name}.json").read_text(encoding="utf-8") == to_json(ARCHITECTURES[name]())


def test_resunet_has_the_published_figures(resunet_network: Network) -> None:
    assert resunet_network.graph.name == "model_1"
    assert count_operations(resunet_network.graph) == 231
    assert count_parameters(resunet_network) == ParameterCounts(total=32513559, trainable=32513559)
    assert resunet_network.check(256, 256) == (1, 256, 256)
    assert resunet_network.output_activation == "sigmoid"


def test_resunet_computes_what_keras_computes(resunet_network: Network) -> None:
    """With weights by formula; the only data stored is Keras's output for a 64x64 image."""
    with torch.no_grad():
        for spec, layer in resunet_network.keras_layers():
            for weight in layer.keras_weights:
                target = layer.state_dict().get(weight.name)
                if target is not None:
                    values = formula_weight(spec.name, weight.keras_name, keras_shape(target))
                    target.copy_(weight.to_torch(torch.from_numpy(values)))
        images = formula_input((1, 64, 64, 3))
        logits, activation = resunet_network.eval().forward_logits(torch.from_numpy(images.transpose(0, 3, 1, 2)))

    assert activation == "sigmoid"
    with np.load(FOLDER / "resunet.npz") as stored:
        expected = stored["logits"].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_small_unet_is_small() -> None:
    network = Network(read_network(small_unet()))
    assert count_parameters(network).total == 488001  # 486576 in kernels without bias, 17 in the last, 1408 in norms
    assert network.check(128, 128) == (1, 128, 128)
    assert network.output_activation == "sigmoid"


@pytest.mark.parametrize(("name", "size"), [("resunet", (96, 64)), ("small_unet", (40, 56))])
def test_other_sizes_and_channels(name: str, size: tuple[int, int]) -> None:
    network = Network(read_network(ARCHITECTURES[name](*size, channels=1)))
    assert network.input_shape == (1, *size)
    assert network.check(*size) == (1, *size)


@pytest.mark.parametrize("size", [(100, 96), (96, 100), (0, 32), (-32, 32)])
def test_sizes_that_do_not_halve_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        resunet(*size)


def test_command_line_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "net.json"
    assert main(["small_unet", str(out), "--size", "64", "96", "--channels", "1"]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == small_unet(64, 96, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small_unet", "net.json", "--size", "63", "64"], "multiples of 8"),
        (["small_unet", "net.json", "--channels", "0"], "at least one channel"),
        (["small_unet", "missing/net.json"], "No such file"),
        (["vgg", "net.json"], "invalid choice"),
    ],
)
def test_command_line_says_what_is_wrong(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_builder_and_the_reader_need_no_torch() -> None:
    program = (
        "import sys, rmldnn_torch.architectures, rmldnn_torch.keras_graph; print(*{'torch', 'h5py'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
