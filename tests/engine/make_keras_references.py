"""Writes the files in ``keras_references``: what Keras 2.8 itself computes, for the tests to compare with.

The project's network files are in the format of Keras 2.8, which runs on Python 3.7 to 3.10 only, so this script
has an environment of its own and imports nothing of the project:

    python3.9 -m venv keras28
    keras28/bin/pip install tensorflow-cpu==2.8.4 tensorflow-addons==0.16.1 "protobuf<3.20" "numpy<1.24"
    keras28/bin/python tests/engine/make_keras_references.py

Inputs and weights are drawn in steps of 1/64, which float32 holds exactly and which compress well. The ResUNet is too
large to store: its weights come from ``formula_weights.py``, which the test uses as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from formula_weights import formula_input, formula_weight

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf
import tensorflow_addons
from tensorflow import keras

layers = keras.layers
FOLDER = Path(__file__).parent / "keras_references"
RESUNET = Path(__file__).parents[2] / "layers_resunet.json"
BATCH = 2

Build = Callable[[object], object]  # a Keras tensor to a Keras tensor
Case = tuple[tuple[int, ...], Build]  # the shape of a sample, and what is done with it

IMAGE = (7, 10, 4)


def convolutions() -> dict[str, Case]:
    conv, depthwise, separable = layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D
    return {
        "conv2d_valid": (IMAGE, conv(3, 3)),
        "conv2d_valid_stride": (IMAGE, conv(3, (2, 3), strides=(3, 2), use_bias=False)),
        "conv2d_same": (IMAGE, conv(3, 3, padding="same", activation="relu")),
        "conv2d_same_even_kernel": (IMAGE, conv(3, 4, padding="same")),
        "conv2d_same_stride": (IMAGE, conv(3, 3, strides=2, padding="same")),
        "conv2d_same_stride_even_kernel": (IMAGE, conv(3, (2, 4), strides=(3, 2), padding="same")),
        "conv2d_stride_above_kernel": (IMAGE, conv(3, 1, strides=3, padding="same")),
        "conv2d_dilation": (IMAGE, conv(3, 3, dilation_rate=2)),
        "conv2d_same_dilation": (IMAGE, conv(3, (3, 2), dilation_rate=(2, 3), padding="same")),
        "conv2d_groups": (IMAGE, conv(6, 3, groups=2)),
        "conv2d_softmax": (IMAGE, conv(3, 1, activation="softmax")),
        "conv1d_same_stride": ((9, 3), layers.Conv1D(4, 4, strides=2, padding="same")),
        "conv3d_same_stride": ((4, 5, 6, 2), layers.Conv3D(3, (2, 3, 3), strides=2, padding="same")),
        "depthwise2d": (IMAGE, depthwise(3, depth_multiplier=2)),
        "depthwise2d_same_stride": (IMAGE, depthwise(3, strides=2, padding="same", activation="tanh")),
        "depthwise2d_dilation": (IMAGE, depthwise(2, dilation_rate=2, use_bias=False)),
        "depthwise1d": ((9, 3), layers.DepthwiseConv1D(3, strides=2, padding="same", depth_multiplier=2)),
        "separable2d": (IMAGE, separable(5, 3, strides=2, padding="same", depth_multiplier=2)),
        "separable1d": ((9, 3), layers.SeparableConv1D(5, 3, activation="relu", use_bias=False)),
        "dense": ((12,), layers.Dense(5, activation="sigmoid")),
        "dense_on_image": ((4, 5, 3), layers.Dense(2, use_bias=False)),
        "flatten_dense": ((4, 5, 3), lambda x: layers.Dense(3)(layers.Flatten()(x))),
    }


def transposed_convolutions() -> dict[str, Case]:
    transposed = layers.Conv2DTranspose
    image = (4, 5, 3)
    return {
        "transposed2d_same": (image, transposed(2, 3, strides=2, padding="same")),
        "transposed2d_valid": (image, transposed(2, 3, strides=2, activation="relu")),
        "transposed2d_same_even_kernel": (image, transposed(2, 4, strides=2, padding="same")),
        "transposed2d_no_stride": (image, transposed(2, (2, 3), padding="same", use_bias=False)),
        "transposed2d_valid_stride_above_kernel": (image, transposed(2, 2, strides=3)),
        "transposed2d_same_stride_above_kernel": (image, transposed(2, 2, strides=3, padding="same")),
        "transposed2d_same_wide_kernel": (image, transposed(2, 5, strides=(2, 3), padding="same")),
        "transposed2d_same_output_padding": (
            image,
            transposed(2, 3, strides=(2, 3), padding="same", output_padding=(1, 0)),
        ),
        "transposed2d_valid_output_padding": (image, transposed(2, 3, strides=2, output_padding=1)),
        "transposed1d_same": ((5, 3), layers.Conv1DTranspose(2, 3, strides=2, padding="same")),
        "transposed3d_same": ((3, 2, 4, 2), layers.Conv3DTranspose(2, 3, strides=2, padding="same")),
    }


def poolings() -> dict[str, Case]:
    maximum, average = layers.MaxPooling2D, layers.AveragePooling2D
    return {
        "max2d": (IMAGE, maximum()),
        "max2d_stride": (IMAGE, maximum(3, strides=2)),
        "max2d_same": (IMAGE, maximum(2, padding="same")),
        "max2d_same_symmetric": (IMAGE, maximum(3, strides=1, padding="same")),
        "max2d_same_stride": (IMAGE, maximum((3, 4), strides=2, padding="same")),
        "max1d_same": ((9, 3), layers.MaxPooling1D(2, padding="same")),
        "max3d": ((4, 5, 6, 2), layers.MaxPooling3D(2)),
        "average2d": (IMAGE, average((2, 3))),
        "average2d_same": (IMAGE, average(2, padding="same")),
        "average2d_same_symmetric": (IMAGE, average(3, strides=1, padding="same")),
        "average2d_same_stride": (IMAGE, average((3, 4), strides=2, padding="same")),
        "average1d_same": ((9, 3), layers.AveragePooling1D(2, padding="same")),
        "average3d_same": ((3, 5, 4, 2), layers.AveragePooling3D(2, padding="same")),
        "global_max1d": ((9, 3), layers.GlobalMaxPooling1D()),
        "global_max2d": (IMAGE, layers.GlobalMaxPooling2D(keepdims=True)),
        "global_max3d": ((4, 5, 6, 2), layers.GlobalMaxPooling3D()),
        "global_average1d": ((9, 3), layers.GlobalAveragePooling1D()),
        "global_average2d": (IMAGE, layers.GlobalAveragePooling2D()),
        "global_average3d": ((4, 5, 6, 2), layers.GlobalAveragePooling3D(keepdims=True)),
    }


def normalizations() -> dict[str, Case]:
    normalization = layers.BatchNormalization
    return {
        "batch_normalization": (IMAGE, normalization(epsilon=2e-5)),
        "batch_normalization_without_scale": (IMAGE, normalization(scale=False)),
        "batch_normalization_without_center": (IMAGE, normalization(center=False)),
        "batch_normalization_bare": (IMAGE, normalization(center=False, scale=False)),
        "batch_normalization_of_rows": (IMAGE, normalization(axis=1)),
        "batch_normalization_of_columns": (IMAGE, normalization(axis=2)),
        "batch_normalization_vector": ((6,), normalization()),
        "batch_normalization_sequence": ((9, 3), normalization()),
        "batch_normalization_volume": ((3, 4, 5, 2), normalization()),
    }


def activations() -> dict[str, Case]:
    smooth = ("elu", "selu", "gelu", "exponential", "sigmoid", "softplus", "softsign", "swish", "tanh", "softmax")
    named = {f"activation_{name}": ((5, 3), layers.Activation(name)) for name in ("linear", "relu", *smooth)}
    relu, softmax = layers.ReLU, layers.Softmax
    return {
        **named,
        "activation_relu6": ((5, 3), lambda x: layers.Activation(tf.nn.relu6)(layers.Add()([x] * 9))),
        "activation_log_softmax": ((5, 3), layers.Activation(tf.nn.log_softmax)),
        "relu": ((5, 3), relu()),
        "relu_max_value": ((5, 3), relu(max_value=0.75)),
        "relu_slope": ((5, 3), relu(negative_slope=0.25)),
        "relu_threshold": ((5, 3), relu(threshold=0.3)),
        "relu_everything": ((5, 3), relu(max_value=0.75, negative_slope=0.25, threshold=0.3)),
        "leaky_relu": ((5, 3), layers.LeakyReLU(0.2)),
        "softmax": ((4, 5, 3), softmax()),
        "softmax_of_rows": ((4, 5, 3), softmax(axis=1)),
        "softmax_of_columns": ((4, 5, 3), softmax(axis=-2)),
        "softmax_vector": ((6,), softmax()),
    }


def reshapings() -> dict[str, Case]:
    image = (4, 5, 3)
    return {
        "zero_padding1d": ((5, 3), layers.ZeroPadding1D((2, 1))),
        "zero_padding2d": (image, layers.ZeroPadding2D(2)),
        "zero_padding2d_axes": (image, layers.ZeroPadding2D((1, 3))),
        "zero_padding2d_sides": (image, layers.ZeroPadding2D(((0, 2), (3, 1)))),
        "zero_padding3d": ((2, 3, 4, 2), layers.ZeroPadding3D(((1, 0), (0, 2), (1, 1)))),
        "cropping1d": ((5, 3), layers.Cropping1D((2, 1))),
        "cropping2d": ((7, 9, 2), layers.Cropping2D(((0, 2), (3, 1)))),
        "cropping3d": ((4, 5, 6, 2), layers.Cropping3D((1, 2, 1))),
        "up_sampling1d": ((5, 3), layers.UpSampling1D(3)),
        "up_sampling2d": (image, layers.UpSampling2D((2, 3))),
        "up_sampling2d_bilinear": (image, layers.UpSampling2D((2, 3), interpolation="bilinear")),
        "up_sampling3d": ((2, 3, 2, 2), layers.UpSampling3D((1, 2, 3))),
        "flatten": (image, layers.Flatten()),
        "reshape": (image, layers.Reshape((10, 6))),
        "reshape_unknown": (image, layers.Reshape((2, -1, 3, 1))),
        "reshape_vector": ((12,), layers.Reshape((2, 3, 2))),
        "dropout": (image, lambda x: layers.SpatialDropout2D(0.3)(layers.Dropout(0.4)(x))),
        "dropout_sequence": ((5, 3), layers.SpatialDropout1D(0.3)),
        "dropout_volume": ((2, 3, 2, 2), layers.SpatialDropout3D(0.3)),
    }


def merges() -> dict[str, Case]:
    def merge(layer: Build, *functions: str) -> Build:
        return lambda x: layer([layers.Activation(function)(x) for function in functions])

    def gate(x: object) -> object:
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return layers.Multiply()([x, layers.Dense(3, activation="sigmoid")(squeezed)])

    def stack(axis: int) -> Build:
        return lambda x: layers.Concatenate(axis)([x, layers.ZeroPadding2D(1)(layers.Cropping2D(1)(x))])

    image = (4, 5, 3)
    return {
        "add": (image, merge(layers.Add(), "relu", "tanh", "linear")),
        "subtract": (image, merge(layers.Subtract(), "relu", "tanh")),
        "multiply": (image, merge(layers.Multiply(), "relu", "tanh", "linear")),
        "average": (image, merge(layers.Average(), "relu", "tanh", "linear")),
        "multiply_broadcast": (image, gate),
        "concatenate": (image, stack(-1)),
        "concatenate_channels": (image, stack(3)),
        "concatenate_rows": (image, stack(1)),
        "concatenate_columns": (image, stack(2)),
        "concatenate_vectors": ((6,), merge(layers.Concatenate(), "relu", "tanh")),
    }


def sample_normalizations() -> dict[str, Case]:
    over_axes, over_pixels = layers.LayerNormalization, tensorflow_addons.layers.InstanceNormalization
    return {
        "layer_normalization": (IMAGE, over_axes()),
        "layer_normalization_bare": (IMAGE, over_axes(center=False, scale=False, epsilon=0.25)),
        "layer_normalization_of_rows": (IMAGE, over_axes(axis=1)),
        "layer_normalization_of_columns_and_channels": (IMAGE, over_axes(axis=[-2, -1])),
        "layer_normalization_of_rows_and_channels": (IMAGE, over_axes(axis=[1, 3], scale=False)),
        "layer_normalization_of_everything": (IMAGE, over_axes(axis=[1, 2, 3])),
        "layer_normalization_vector": ((6,), over_axes()),
        "layer_normalization_volume": ((3, 4, 5, 2), over_axes(center=False)),
        "instance_normalization": (IMAGE, over_pixels(epsilon=0.25)),
        "instance_normalization_bare": (IMAGE, over_pixels(center=False, scale=False)),
        "instance_normalization_of_rows": (IMAGE, over_pixels(axis=1)),
        "instance_normalization_sequence": ((9, 3), over_pixels()),
        "instance_normalization_volume": ((3, 4, 5, 2), over_pixels(scale=False)),
    }


def nested_models() -> dict[str, Case]:
    """Models inside models, and layers that are called several times."""
    image = (4, 5, 3)

    def block(name: str, *convolutions: str) -> keras.Model:
        def build(x: object) -> object:
            for convolution in convolutions:
                x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same", name=convolution)(x))
            return layers.ReLU()(x)

        return functional_model(image, build, name)

    def twice(x: object) -> object:
        trunk = block("trunk", "conv")
        return layers.Subtract()([trunk(x, training=False), trunk(layers.Activation("tanh")(x), training=False)])

    def stacked(x: object) -> object:
        inner = keras.Sequential([keras.Input(image), layers.Conv2D(2, 2, activation="tanh"), layers.ReLU()])
        return keras.Sequential([inner, layers.Flatten(), layers.Dense(4)])(x)

    def crossed(x: object) -> object:
        first, second = keras.Input(image), keras.Input(image)
        outputs = [layers.Conv2D(2, 1)(second), layers.Conv2D(2, 1, activation="relu")(first)]
        low, high = keras.Model([first, second], outputs, name="pair")([layers.Activation("tanh")(x), x])
        return layers.Subtract()([high, low])

    def shared(x: object) -> object:
        conv, norm = layers.Conv2D(3, 3, padding="same", activation="relu"), layers.BatchNormalization()
        x = norm(conv(x))
        return layers.Concatenate()([x, norm(conv(x))])

    def same_names(x: object) -> object:
        x = block("left", "conv", "own")(layers.Conv2D(3, 1, name="conv")(x))
        return block("right", "conv")(x)

    def through(x: object) -> object:
        unchanged = functional_model(image, lambda y: y, "unchanged")
        return layers.Add()([unchanged(x), unchanged(unchanged(x))])

    def deep(x: object) -> object:
        return functional_model(image, lambda y: block("inner", "deep_conv")(layers.ReLU()(y)), "middle")(x)

    return {
        "nested": (image, block("trunk", "conv", "conv_2")),
        "nested_twice": (image, twice),
        "nested_sequential": (image, stacked),
        "nested_two_inputs_and_outputs": (image, crossed),
        "nested_same_names": (image, same_names),
        "nested_nothing": (image, through),
        "nested_deep": (image, deep),
        "shared_layers": (image, shared),
        "added_to_itself": (image, lambda x: layers.Add()([x, layers.ReLU()(x), x])),
    }


FAMILIES = {
    "convolutions": convolutions,
    "transposed_convolutions": transposed_convolutions,
    "poolings": poolings,
    "normalizations": normalizations,
    "activations": activations,
    "reshapings": reshapings,
    "merges": merges,
}
# Drawn after all others, whose numbers so stay as they were.
LATER_FAMILIES = {"sample_normalizations": sample_normalizations, "nested_models": nested_models}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    generator = np.random.default_rng(20220324)
    for family, cases in FAMILIES.items():
        np.savez_compressed(FOLDER / f"{family}.npz", **layer_references(cases(), generator))
    np.savez_compressed(FOLDER / "training.npz", **training_reference(generator))
    np.savez_compressed(FOLDER / "resunet.npz", logits=resunet_logits())
    np.savez_compressed(FOLDER / "published.npz", networks=np.array(json.dumps(published_networks())))
    write_models(generator)
    for family, cases in LATER_FAMILIES.items():
        np.savez_compressed(FOLDER / f"{family}.npz", **layer_references(cases(), generator))


def layer_references(cases: dict[str, Case], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """For each case ``CASE:input``, ``CASE:output``, and ``CASE:LAYER:WEIGHT`` for each weight.

    All the network files are one text, ``networks``: case -> network.
    """
    arrays: dict[str, np.ndarray] = {}
    networks: dict[str, object] = {}
    for name, (shape, build) in cases.items():
        keras.backend.clear_session()
        model = functional_model(shape, build)
        set_weights(model, generator)
        inputs = draw(generator, (BATCH, *shape))
        networks[name] = json.loads(model.to_json())
        arrays[f"{name}:input"] = inputs
        arrays[f"{name}:output"] = run(model, inputs)
        for layer in model.layers:
            for weight in layer.weights:
                arrays[f"{name}:{layer.name}:{weight.name}"] = weight.numpy()
    return {"networks": np.array(json.dumps(networks)), **arrays}


def functional_model(shape: tuple[int, ...], build: Build, name: str = "model") -> keras.Model:
    inputs = keras.Input(shape, name="data")
    return keras.Model(inputs, build(inputs), name=name)


def run(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """The model's output; with grouped convolutions compiled by XLA, where alone TensorFlow has them on the CPU."""
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in model.layers)
    return np.asarray(tf.function(model, jit_compile=True)(inputs) if grouped else model(inputs))


def set_weights(model: keras.Model, generator: np.random.Generator) -> None:
    """Random weights; variances between 0.5 and 1.5."""
    for weight in model.weights:
        values = draw(generator, weight.shape)
        weight.assign(1 + values / 2 if "variance" in weight.name or "gamma" in weight.name else values)


def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1 to 1 in steps of 1/64."""
    return (generator.integers(-64, 65, size=shape) / 64).astype(np.float32)


def training_reference(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """One call of a BatchNormalization in training mode: its output, and its moving statistics afterwards."""
    inputs = draw(generator, (3, 2, 3, 4))
    layer = layers.BatchNormalization(momentum=0.9)
    model = functional_model(inputs.shape[1:], layer)
    set_weights(model, generator)
    before = {f"before:{weight.name}": weight.numpy() for weight in layer.weights}
    outputs = layer(inputs, training=True).numpy()
    after = {f"after:{weight.name}": weight.numpy() for weight in layer.weights}
    return {"json": np.array(model.to_json()), "input": inputs, "output": outputs, **before, **after}


def published_networks() -> dict[str, object]:
    """Network files of models whose counts rmldnn's tutorials print: one Functional, one Sequential."""
    keras.backend.clear_session()
    xception = functional_model((160, 160, 3), xception_unet)
    mnist = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation=tf.nn.log_softmax),
        ]
    )
    return {"xception": json.loads(xception.to_json()), "mnist": json.loads(mnist.to_json())}


def xception_unet(x: object) -> object:
    """The Xception-style U-Net for the pets data set, three classes."""
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 3, strides=2, padding="same")(x)))
    shortcut = x
    for filters in (64, 128, 256):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = shortcut = layers.Add()([x, layers.Conv2D(filters, 1, strides=2, padding="same")(shortcut)])
    for filters in (256, 128, 64, 32):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.Conv2DTranspose(filters, 3, padding="same")(x))
        residual = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D()(shortcut))
        x = shortcut = layers.Add()([layers.UpSampling2D()(x), residual])
    return layers.Conv2D(3, 3, activation="softmax", padding="same")(x)


def resunet_logits() -> np.ndarray:
    """The tensor before the last sigmoid of the project's ResUNet on a 64x64 image."""
    document = json.loads(RESUNET.read_text(encoding="utf-8"))
    document["config"]["layers"][0]["config"]["batch_input_shape"] = [None, 64, 64, 3]
    keras.backend.clear_session()
    model = keras.models.model_from_json(json.dumps(document))
    for layer in model.layers:
        for weight in layer.weights:
            kind = weight.name.rpartition("/")[2].partition(":")[0]
            weight.assign(formula_weight(layer.name, kind, tuple(weight.shape)))
    logits = keras.Model(model.inputs, model.get_layer("final_conv").output)
    return np.asarray(logits(formula_input((1, 64, 64, 3)))).astype(np.float32)


def write_models(generator: np.random.Generator) -> None:
    """A small network as Keras saves it: weights only, the whole model, and as a model inside a model."""
    keras.backend.clear_session()
    model = functional_model((8, 8, 2), small_network, name="small")
    set_weights(model, generator)
    model.save_weights(FOLDER / "weights_only.h5")
    model.save(FOLDER / "whole_model.h5", include_optimizer=False)
    inputs = draw(generator, (BATCH, 8, 8, 2))
    np.savez_compressed(
        FOLDER / "small.npz", json=np.array(model.to_json()), input=inputs, output=model(inputs).numpy()
    )
    outer_input = keras.Input((8, 8, 2), name="outer_data")
    keras.Model(outer_input, model(outer_input), name="outer").save_weights(FOLDER / "nested.h5")


def small_network(x: object) -> object:
    skipped = layers.Conv2D(3, 3, padding="same", activation="relu", name="encoder.conv")(x)
    x = layers.MaxPooling2D(name="pool")(skipped)
    x = layers.SeparableConv2D(4, 3, padding="same", use_bias=False, name="middle")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="up")(x)
    x = layers.Concatenate(name="join")([x, skipped])
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    return layers.Dense(1, activation="sigmoid", name="head")(x)


if __name__ == "__main__":
    main()
