"""Each layer against what Keras 2.8 computed, and what the layers refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import LayerSpec, read_network
from rmldnn_torch.layers import KerasLayer, build_layer, known_classes, register
from rmldnn_torch.layers.shape import UpSampling
from rmldnn_torch.network import Network
from rmldnn_torch.precision import Arithmetic
from rmldnn_torch.run import place
from rmldnn_torch.weights import load_checkpoint

from .keras_references_reader import FOLDER, Reference, read_references, write_keras_file

REFERENCES = {reference.name: reference for reference in read_references()}
ON_IMAGES = {name: reference for name, reference in REFERENCES.items() if reference.inputs.ndim == 4}

# Classes that rmldnn has and Keras 2.8 has not; they are tested by what they are made of. InstanceNormalization is the
# one of keras_contrib here: that of tensorflow_addons has references.
NOT_IN_KERAS = {"Log_Softmax", "Sigmoid", "Swish", "Tanh", "DepthwiseConv3D", "InstanceNormalization"}


def to_channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def to_channels_last(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def build(class_name: str, *shapes: tuple[int, ...], **config: object) -> KerasLayer:
    inputs = tuple(f"input_{index}" for index, _ in enumerate(shapes))
    return build_layer(LayerSpec("x", class_name, config, inputs), shapes)


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
def test_a_layer_computes_what_keras_computes(reference: Reference, tmp_path: Path) -> None:
    network = Network(read_network(reference.network))
    if reference.weights:
        write_keras_file(tmp_path / "weights.h5", reference.weights)
        report = load_checkpoint(tmp_path / "weights.h5", network)
        assert report.missing == ()
    network.eval()

    outputs = network(to_channels_first(reference.inputs))

    np.testing.assert_allclose(to_channels_last(outputs), reference.outputs, rtol=1e-5, atol=2e-6)
    assert network.check(*reference.inputs.shape[1:-1]) == tuple(outputs.shape[1:])


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
def test_a_layer_trains_in_bf16(reference: Reference) -> None:
    torch.manual_seed(0)
    network = place(Network(read_network(reference.network)), torch.device("cpu")).eval()
    inputs = to_channels_first(reference.inputs)
    expected = network.forward_logits(inputs)[0].detach()
    inputs.requires_grad_()
    with Arithmetic(precision="bf16").autocast():
        outputs, _ = network.forward_logits(inputs)
    if outputs.requires_grad:  # a threshold at a constant has no gradient
        outputs.float().square().sum().backward()
    # bf16 has 8 bits: 0.4 % in each of the two or three layers of a reference.
    atol = 0.05 * float(expected.abs().max()) + 1e-6
    torch.testing.assert_close(outputs.detach().float(), expected, rtol=0.0, atol=atol)
    assert all(p.grad.dtype == torch.float32 for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("reference", ON_IMAGES.values(), ids=ON_IMAGES.keys())
def test_a_layer_takes_channels_last_memory(reference: Reference) -> None:
    network = Network(read_network(reference.network)).eval()
    inputs = to_channels_first(reference.inputs)
    expected = network(inputs)
    outputs = network.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=2e-6)


def test_every_class_that_rmldnn_documents_can_be_built() -> None:
    dimensions = {
        "Conv": "123",
        "DepthwiseConv": "123",
        "SeparableConv": "12",
        **{f"{kind}Pooling": "123" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")},
        **dict.fromkeys(("UpSampling", "ZeroPadding", "Cropping"), "123"),
        "SpatialDropout": "23",
    }
    numbered = {f"{name}{number}D" for name, numbers in dimensions.items() for number in numbers}
    transposed = {f"Conv{number}DTranspose" for number in "123"}
    plain = (
        "Dense BatchNormalization InstanceNormalization LayerNormalization Dropout Reshape Flatten Add Subtract "
        "Multiply Average Concatenate Activation ReLU LeakyReLU Softmax Log_Softmax Sigmoid Tanh Swish"
    )
    assert {*numbered, *transposed, *plain.split()} <= set(known_classes())


def test_every_class_has_a_reference() -> None:
    compared = {spec.class_name for r in REFERENCES.values() for spec in read_network(r.network).layers}
    assert set(known_classes()) - compared == NOT_IN_KERAS


@pytest.mark.parametrize("class_name", ["Sigmoid", "Tanh", "Swish"])
def test_an_activation_class_is_the_activation_of_its_name(class_name: str) -> None:
    inputs = torch.linspace(-3, 3, 7).reshape(1, 7)
    named = build("Activation", (7,), activation=class_name.lower())
    torch.testing.assert_close(build(class_name, (7,))(inputs), named(inputs))


def test_log_softmax_is_the_logarithm_of_softmax_on_the_same_axis() -> None:
    inputs = torch.randn(2, 3, 4, 5)
    for axis in (-1, 1, 2, 3):
        probabilities = build("Softmax", (3, 4, 5), axis=axis)(inputs)
        torch.testing.assert_close(build("Log_Softmax", (3, 4, 5), axis=axis)(inputs).exp(), probabilities)


def test_a_depthwise_convolution_of_volumes_treats_each_channel_by_itself() -> None:
    layer = build("DepthwiseConv3D", (2, 4, 4, 4), kernel_size=3, depth_multiplier=2)
    inputs = torch.randn(1, 2, 4, 4, 4)
    with torch.no_grad():
        outputs = layer(inputs)
        inputs[:, 0] += 1
        changed = (layer(inputs) - outputs).abs().amax((0, 2, 3, 4)) > 1e-4
    assert changed.tolist() == [True, True, False, False]


def test_batch_normalization_moves_its_statistics_as_keras_does(tmp_path: Path) -> None:
    with np.load(FOLDER / "training.npz") as stored:
        arrays = dict(stored)
    network = Network(read_network(json.loads(str(arrays["json"]))))
    before = {key.partition(":")[2]: values for key, values in arrays.items() if key.startswith("before:")}
    write_keras_file(tmp_path / "weights.h5", {"batch_normalization": before})
    assert load_checkpoint(tmp_path / "weights.h5", network).missing == ()

    outputs = network.train()(to_channels_first(arrays["input"]))

    np.testing.assert_allclose(to_channels_last(outputs), arrays["output"], rtol=1e-5, atol=1e-6)
    for name, keras in (("running_mean", "moving_mean"), ("running_var", "moving_variance")):
        expected = arrays[f"after:batch_normalization/{keras}:0"]
        moved = network.state_dict()[f"batch_normalization.{name}"].numpy()
        np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("axis", "axes"), [(None, (1, 2, 3)), (-1, (1, 2)), (1, (2, 3))])
def test_instance_normalization_of_keras_contrib_adds_epsilon_to_the_deviation(
    axis: int | None, axes: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).normal(3, 2, (2, 5, 6, 4)).astype(np.float32)  # channels last
    layer = build("InstanceNormalization", (4, 5, 6), axis=axis, epsilon=0.5, gamma_initializer="ones")
    assert layer.weight.shape == layer.bias.shape == (1 if axis is None else images.shape[axis],)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(0.25)
    deviation = images.std(axes, keepdims=True)
    expected = (images - images.mean(axes, keepdims=True)) / (deviation + 0.5) * 2 + 0.25
    np.testing.assert_allclose(to_channels_last(layer(to_channels_first(images))), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("class_name", ["InstanceNormalization", "Addons>InstanceNormalization"])
def test_a_constant_channel_has_a_finite_gradient(class_name: str) -> None:
    inputs = torch.zeros(1, 2, 3, 3, requires_grad=True)
    layer = build(class_name, (2, 3, 3), axis=-1)
    layer(inputs).square().sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()
    assert layer(torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("factor", range(1, 17))
def test_nearest_up_sampling_repeats_each_pixel_equally_often(factor: int) -> None:
    inputs = torch.arange(37.0).reshape(1, 1, 37)
    outputs = UpSampling((factor,), bilinear=False)(inputs)
    assert torch.equal(outputs, inputs.repeat_interleave(factor, dim=2))


def test_dropout_drops_values_and_spatial_dropout_whole_channels() -> None:
    torch.manual_seed(0)
    inputs = torch.ones(1, 400, 6, 6)
    values = build("Dropout", (400, 6, 6), rate=0.25)(inputs)
    channels = build("SpatialDropout2D", (400, 6, 6), rate=0.25)(inputs)
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)  # 14400 draws: 5 standard deviations
    assert (channels == 0).float().mean().item() == pytest.approx(0.25, abs=0.1)  # 400 draws: 4.6
    assert torch.equal(channels.amax((2, 3)), channels.amin((2, 3)))
    assert channels.max().item() == pytest.approx(1 / 0.75)


def test_a_class_has_one_builder() -> None:
    with pytest.raises(ValueError, match="Conv2D"):
        register("Conv2D")(lambda config: KerasLayer())


@pytest.mark.parametrize(
    ("class_name", "shape", "config", "message"),
    [
        ("Conv2d", (3, 8, 8), {}, "the nearest that it has is Conv2D"),
        ("Lambda", (3, 8, 8), {}, "no layer class 'Lambda'"),
        ("Conv2D", (3, 8, 8), {"kernel_size": 3}, "lacks 'filters'"),
        ("Conv2D", (3, 8, 8), {"filters": 0, "kernel_size": 3}, "filters must be at least 1"),
        ("Conv2D", (3, 8, 8), {"filters": True, "kernel_size": 3}, "filters must be an integer"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": [3]}, "kernel_size must have 2 sizes"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "padding": "full"}, "one of valid, same"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "groups": 2}, "2 groups"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "data_format": "channels_first"}, "channels_last"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "stride": 2}, "did you mean 'strides'"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "strides": 2, "dilation_rate": 2}, "cannot both"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "kernel_regularizer": {"l2": 1.0}}, "weight_decay"),
        ("Conv2D", (3, 8, 8), {"filters": 4, "kernel_size": 3, "kernel_initializer": "he"}, "'he' is not known"),
        ("Conv3D", (3, 8, 8), {"filters": 4, "kernel_size": 3}, "3 spatial axes and channels, its input is 8x8x3"),
        ("Conv2DTranspose", (3, 8, 8), {"filters": 4, "kernel_size": 3, "output_padding": 1}, "below strides"),
        ("BatchNormalization", (3, 8, 8), {"axis": 4}, "axis 4"),
        ("BatchNormalization", (3, 8, 8), {"axis": 0}, "axis 0"),
        ("BatchNormalization", (3, 8, 8), {"momentum": 1.5}, "momentum must lie between 0 and 1"),
        ("LayerNormalization", (3, 8, 8), {"axis": [3, 1]}, "ascending order"),
        ("LayerNormalization", (3, 8, 8), {"axis": [3, -1]}, "each once"),
        ("LayerNormalization", (3, 8, 8), {"axis": [0]}, "axis [0]"),
        ("LayerNormalization", (3, 8, 8), {"axis": []}, "axis []"),
        ("InstanceNormalization", (3, 8, 8), {"axis": 3, "groups": 2}, "groups must be 3"),
        ("InstanceNormalization", (3,), {"axis": 1}, "no spatial axes"),
        ("InstanceNormalization", (3, 8, 8), {"epsilon": -1}, "epsilon"),
        ("Activation", (3, 8, 8), {"activation": "rellu"}, "did you mean 'relu'"),
        ("Activation", (3, 8, 8), {}, "activation must be a name"),
        ("UpSampling2D", (3, 8, 8), {"interpolation": "bicubic"}, "nearest, bilinear"),
        ("ZeroPadding2D", (3, 8, 8), {"padding": [1, 2, 3]}, "padding must name 2 axes"),
        ("ZeroPadding2D", (3, 8, 8), {"padding": -1}, "padding must be at least 0"),
        ("Reshape", (3, 8, 8), {"target_shape": [-1, -1]}, "at most one -1"),
        ("Dropout", (3, 8, 8), {"rate": 2}, "rate must lie between 0 and 1"),
        ("Dropout", (3, 8, 8), {"rate": float("nan")}, "rate must be a number"),
        ("ReLU", (3, 8, 8), {"threshold": -1.0}, "threshold must lie"),
        ("Add", (3, 8, 8), {}, "at least two inputs"),
    ],
)
def test_wrong_settings_are_named(
    class_name: str, shape: tuple[int, ...], config: dict[str, object], message: str
) -> None:
    with pytest.raises(NetworkError, match="layer 'x'") as caught:
        build(class_name, shape, **config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_that_cannot_be_merged_are_refused() -> None:
    with pytest.raises(NetworkError, match="8x8x3, 3"):
        build("Add", (3, 8, 8), (3,))
    with pytest.raises(NetworkError, match="two inputs, not 3"):
        build("Subtract", (3,), (3,), (3,))
    with pytest.raises(ValueError, match="differ in size"):
        build("Add", (3, 8, 8), (3, 8, 9)).output_shape((3, 8, 8), (3, 8, 9))
    with pytest.raises(ValueError, match="differ in more"):
        build("Concatenate", (3, 8, 8), (3, 8, 9)).output_shape((3, 8, 8), (3, 8, 9))
