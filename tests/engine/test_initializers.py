"""Initial values: bounds and standard deviations from Keras's published formulas."""

from __future__ import annotations

import math

import pytest
import torch

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import LayerSpec
from rmldnn_torch.layers import build_layer


def initial_weight(class_name: str = "Conv2D", channels: int = 16, **config: object) -> torch.Tensor:
    torch.manual_seed(0)
    defaults: dict[str, object] = {"filters": 64, "kernel_size": 3} if class_name != "DepthwiseConv2D" else {}
    layer = build_layer(LayerSpec("x", class_name, {**defaults, **config}, ("y",)), [(channels, 8, 8)])
    return layer.state_dict()["weight"]


# Of a 3x3 kernel from 16 to 64 channels: fan_in 144, fan_out 576.
@pytest.mark.parametrize(
    ("name", "variance", "distribution"),
    [
        ("glorot_uniform", 1 / 360, "uniform"),
        ("GlorotNormal", 1 / 360, "truncated"),
        ("HeUniform", 2 / 144, "uniform"),
        ("he_normal", 2 / 144, "truncated"),
        ("LecunUniform", 1 / 144, "uniform"),
        ("lecun_normal", 1 / 144, "truncated"),
    ],
)
def test_named_variance_scaling(name: str, variance: float, distribution: str) -> None:
    weight = initial_weight(kernel_initializer={"class_name": name, "config": {"seed": 7}})
    # 9216 draws: the standard deviation is known to 1 %.
    assert weight.std().item() == pytest.approx(math.sqrt(variance), rel=0.03)
    width = math.sqrt(3) if distribution == "uniform" else 2 / 0.87962566103423978
    bound = width * math.sqrt(variance)
    assert 0.97 * bound < weight.abs().max().item() <= bound * 1.000001


def test_the_form_of_keras_2_1() -> None:
    config = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}
    old = initial_weight(kernel_initializer={"class_name": "VarianceScaling", "config": config})
    assert torch.equal(old, initial_weight(kernel_initializer="glorot_uniform"))
    assert torch.equal(old, initial_weight())  # Keras's default


def test_fan_out_and_untruncated_normal() -> None:
    config = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}
    weight = initial_weight(kernel_initializer={"class_name": "VarianceScaling", "config": config})
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.03)
    assert weight.abs().max().item() > 3 * math.sqrt(2 / 576)


def test_fans_of_kernels_that_keras_stores_in_another_order() -> None:
    # Depthwise: (3, 3, 64 channels, multiplier 2) has fan_in 576; transposed: (3, 3, 64 filters, 16 inputs) 576.
    depthwise = initial_weight(
        "DepthwiseConv2D", 64, kernel_size=3, depth_multiplier=2, depthwise_initializer="he_uniform"
    )
    transposed = initial_weight("Conv2DTranspose", kernel_initializer="he_uniform")
    bound = math.sqrt(6 / 576)
    for weight in (depthwise, transposed):
        assert 0.97 * bound < weight.abs().max().item() <= bound


def test_plain_distributions() -> None:
    normal = initial_weight(kernel_initializer={"class_name": "RandomNormal", "config": {"mean": 1, "stddev": 0.5}})
    assert normal.mean().item() == pytest.approx(1, abs=0.02)
    assert normal.std().item() == pytest.approx(0.5, rel=0.03)
    uniform = initial_weight(kernel_initializer={"class_name": "RandomUniform", "config": {"minval": 2, "maxval": 3}})
    assert 2 <= uniform.min().item() < 2.01 < 2.99 < uniform.max().item() <= 3
    truncated = initial_weight(kernel_initializer={"class_name": "TruncatedNormal", "config": {"stddev": 0.5}})
    assert 0.95 < truncated.abs().max().item() <= 1
    constant = initial_weight(kernel_initializer={"class_name": "Constant", "config": {"value": 0.25}})
    assert constant.unique().tolist() == [0.25]
    assert initial_weight(kernel_initializer="ones").unique().tolist() == [1]
    assert initial_weight(kernel_initializer="zeros").unique().tolist() == [0]
    flat = initial_weight(kernel_initializer="Orthogonal").flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(64), rtol=0, atol=1e-5)


def test_the_seed_of_torch_decides() -> None:
    spec = LayerSpec("x", "Dense", {"units": 4, "bias_initializer": "RandomNormal"}, ("y",))
    torch.manual_seed(1)
    first, second = build_layer(spec, [(3,)]), build_layer(spec, [(3,)])
    torch.manual_seed(1)
    again = build_layer(spec, [(3,)])
    for name, values in first.state_dict().items():
        assert torch.equal(values, again.state_dict()[name])
        assert not torch.equal(values, second.state_dict()[name])


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        ({"class_name": "RandomNormal", "config": {"stddev": -1}}, "stddev"),
        ({"class_name": "RandomNormal", "config": {"mean": "0"}}, "mean must be a number"),
        ({"class_name": "RandomUniform", "config": {"minval": 1, "maxval": 0}}, "above maxval"),
        ({"class_name": "VarianceScaling", "config": {"scale": 0}}, "scale"),
        ({"class_name": "VarianceScaling", "config": {"mode": "fan"}}, "fan_in, fan_out, fan_avg"),
        ({"class_name": "VarianceScaling", "config": {"distribution": []}}, "uniform"),
        ({"class_name": "HeNormal", "config": 3}, "the name of an initializer"),
        ({}, "the name of an initializer"),
        (["zeros"], "the name of an initializer"),
        ("he_normall", "did you mean 'he_normal'"),
    ],
)
def test_wrong_initializers_are_named(initializer: object, message: str) -> None:
    with pytest.raises(NetworkError, match=r"layer 'x' \(Conv2D\): kernel_initializer") as caught:
        initial_weight(kernel_initializer=initializer)
    assert message in str(caught.value)
