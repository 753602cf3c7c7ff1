"""Builders of network files, in the form in which Keras 2.8's ``model.to_json()`` writes them.

``python -m rmldnn_torch.architectures resunet|small_unet OUT.json [--size H W] [--channels C]``

The project's ``layers_resunet.json`` and ``layers_small_unet.json`` are what this module writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_KERAS_VERSION = "2.8.0"

# The last convolution, which no BatchNormalization follows.
_FINAL: dict[str, object] = {
    "use_bias": True,
    "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
}


class NetworkBuilder:
    """Collects the layers of a ``Functional`` model; each method adds one and returns its name.

    ``momentum`` is that of every BatchNormalization; 0.99 is Keras's default.
    """

    def __init__(self, name: str, *, momentum: float = 0.99) -> None:
        self.name = name
        self._momentum = momentum
        self._layers: list[dict[str, object]] = []

    def input(self, name: str, height: int, width: int, channels: int) -> str:
        """The images that go in."""
        config = {"batch_input_shape": [None, height, width, channels], "dtype": "float32", "sparse": False}
        config |= {"ragged": False, "name": name}
        self._layers.append({"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []})
        return name

    def convolution(self, name: str, source: str, filters: int, kernel: int, **settings: object) -> str:
        """A Conv2D with a square kernel; without ``settings`` no stride, padding, bias or activation."""
        defaults: dict[str, object] = {
            "filters": filters,
            "kernel_size": [kernel, kernel],
            "strides": [1, 1],
            "padding": "valid",
            "data_format": "channels_last",
            "dilation_rate": [1, 1],
            "groups": 1,
            "activation": "linear",
            "use_bias": False,
            "kernel_initializer": {"class_name": "HeUniform", "config": {"seed": None}},
            "bias_initializer": {"class_name": "Zeros", "config": {}},
            "kernel_regularizer": None,
            "bias_regularizer": None,
            "activity_regularizer": None,
            "kernel_constraint": None,
            "bias_constraint": None,
        }
        return self._add("Conv2D", name, [source], **{**defaults, **settings})

    def batch_normalization(self, name: str, source: str, *, epsilon: float = 1e-3, scale: bool = True) -> str:
        """A BatchNormalization of the channels; without ``scale`` it has no gamma."""
        return self._add(
            "BatchNormalization",
            name,
            [source],
            axis=[3],
            momentum=self._momentum,
            epsilon=epsilon,
            center=True,
            scale=scale,
            beta_initializer={"class_name": "Zeros", "config": {}},
            gamma_initializer={"class_name": "Ones", "config": {}},
            moving_mean_initializer={"class_name": "Zeros", "config": {}},
            moving_variance_initializer={"class_name": "Ones", "config": {}},
            beta_regularizer=None,
            gamma_regularizer=None,
            beta_constraint=None,
            gamma_constraint=None,
        )

    def activation(self, name: str, source: str, function: str) -> str:
        """An Activation layer."""
        return self._add("Activation", name, [source], activation=function)

    def zero_padding(self, name: str, source: str, margin: int) -> str:
        """Zeros on all four sides."""
        return self._add(
            "ZeroPadding2D", name, [source], padding=[[margin, margin], [margin, margin]], data_format="channels_last"
        )

    def max_pooling(self, name: str, source: str, size: int, *, stride: int) -> str:
        """The maximum over square windows that lie inside the image."""
        return self._add(
            "MaxPooling2D",
            name,
            [source],
            pool_size=[size, size],
            padding="valid",
            strides=[stride, stride],
            data_format="channels_last",
        )

    def up_sampling(self, name: str, source: str) -> str:
        """Each pixel doubled in height and width."""
        return self._add(
            "UpSampling2D", name, [source], size=[2, 2], data_format="channels_last", interpolation="nearest"
        )

    def concatenate(self, name: str, sources: Sequence[str]) -> str:
        """The channels of several layers side by side."""
        return self._add("Concatenate", name, sources, axis=3)

    def add(self, name: str, sources: Sequence[str]) -> str:
        """The sum of several layers."""
        return self._add("Add", name, sources)

    def document(self, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, object]:
        """The whole network file."""
        config = {
            "name": self.name,
            "layers": self._layers,
            "input_layers": [[name, 0, 0] for name in inputs],
            "output_layers": [[name, 0, 0] for name in outputs],
        }
        return {"class_name": "Functional", "config": config, "keras_version": _KERAS_VERSION, "backend": "tensorflow"}

    def _add(self, class_name: str, name: str, sources: Sequence[str], **settings: object) -> str:
        self._layers.append(
            {
                "class_name": class_name,
                "config": {"name": name, "trainable": True, "dtype": "float32", **settings},
                "name": name,
                "inbound_nodes": [[[source, 0, 0, {}] for source in sources]],
            }
        )
        return name


def resunet(height: int = 256, width: int = 256, channels: int = 3) -> dict[str, object]:
    """The tutorial's U-Net over a ResNet-50 with pre-activation, one sigmoid channel out.

    Layer names are those of the published ImageNet weights; ``height`` and ``width`` must be multiples of 32. At
    256x256x3 it has 231 operations and 32513559 parameters.
    """
    _check_size(height, width, channels, multiple=32)
    return _ResUNet().build(height, width, channels)


def small_unet(height: int = 128, width: int = 128, channels: int = 3) -> dict[str, object]:
    """A U-Net of four levels (16 to 128 filters) for machines without a GPU, one sigmoid channel out.

    About 0.49 million parameters; ``height`` and ``width`` must be multiples of 8.
    """
    _check_size(height, width, channels, multiple=8)
    # A small data set has few steps in an epoch: with Keras's momentum the moving statistics, and with them every
    # evaluation, would lag behind the weights for several hundred steps.
    net = NetworkBuilder("small_unet", momentum=0.9)
    tensor = data = net.input("data", height, width, channels)
    skipped: list[str] = []
    for level, filters in enumerate((16, 32, 64, 128)):
        if level:
            skipped.append(tensor)
            tensor = net.max_pooling(f"encoder_stage{level}_pooling", tensor, 2, stride=2)
        tensor = _double_convolution(net, f"encoder_stage{level}", tensor, filters)
    for stage, filters in enumerate((64, 32, 16)):
        tensor = net.up_sampling(f"decoder_stage{stage}_upsampling", tensor)
        tensor = net.concatenate(f"decoder_stage{stage}_concat", [tensor, skipped.pop()])
        tensor = _double_convolution(net, f"decoder_stage{stage}", tensor, filters)
    tensor = net.convolution("final_conv", tensor, 1, 1, **_FINAL)
    return net.document([data], [net.activation("sigmoid", tensor, "sigmoid")])


class _ResUNet:
    """Builds the ResUNet; counts its paddings and sums, which Keras names by their order."""

    _ENCODER_EPSILON = 2e-5
    _UNITS = (3, 4, 6, 3)
    _ENCODER_FILTERS = (64, 128, 256, 512)
    _DECODER_FILTERS = (256, 128, 64, 32, 16)

    def __init__(self) -> None:
        self.net = NetworkBuilder("model_1")
        self._num_paddings = 0
        self._num_sums = 0

    def build(self, height: int, width: int, channels: int) -> dict[str, object]:
        net = self.net
        data = net.input("data", height, width, channels)
        tensor = net.batch_normalization("bn_data", data, epsilon=self._ENCODER_EPSILON, scale=False)
        tensor = net.convolution("conv0", self._padded(tensor, 3), 64, 7, strides=[2, 2])
        relu0 = self._normalized("0", tensor)
        tensor = net.max_pooling("pooling0", self._padded(relu0, 1), 3, stride=2)
        skipped = [relu0]
        for stage, (num_units, filters) in enumerate(zip(self._UNITS, self._ENCODER_FILTERS, strict=True), start=1):
            for unit in range(1, num_units + 1):
                tensor = self._unit(f"stage{stage}_unit{unit}_", tensor, filters, first=unit == 1, stage=stage)
            if stage < len(self._UNITS):
                # Each level's features are taken after the next stage's first activation.
                skipped.append(f"stage{stage + 1}_unit1_relu1")
        tensor = self._normalized("1", tensor)
        for stage, filters in enumerate(self._DECODER_FILTERS):
            name = f"decoder_stage{stage}"
            tensor = net.up_sampling(f"{name}_upsampling", tensor)
            if skipped:
                tensor = net.concatenate(f"{name}_concat", [tensor, skipped.pop()])
            tensor = _double_convolution(net, name, tensor, filters)
        tensor = net.convolution("final_conv", tensor, 1, 3, padding="same", **_FINAL)
        return net.document([data], [net.activation("sigmoid", tensor, "sigmoid")])

    def _unit(self, name: str, source: str, filters: int, *, first: bool, stage: int) -> str:
        """A bottleneck with pre-activation; the first of a stage changes the channels and, but in stage 1, the size."""
        net = self.net
        strides = [2, 2] if first and stage > 1 else [1, 1]
        activated = self._normalized("1", source, name)
        tensor = net.convolution(f"{name}conv1", activated, filters, 1)
        tensor = self._padded(self._normalized("2", tensor, name), 1)
        tensor = net.convolution(f"{name}conv2", tensor, filters, 3, strides=strides)
        tensor = net.convolution(f"{name}conv3", self._normalized("3", tensor, name), 4 * filters, 1)
        shortcut = net.convolution(f"{name}sc", activated, 4 * filters, 1, strides=strides) if first else source
        total = net.add(_numbered("add", self._num_sums), [tensor, shortcut])
        self._num_sums += 1
        return total

    def _normalized(self, suffix: str, source: str, prefix: str = "") -> str:
        tensor = self.net.batch_normalization(f"{prefix}bn{suffix}", source, epsilon=self._ENCODER_EPSILON)
        return self.net.activation(f"{prefix}relu{suffix}", tensor, "relu")

    def _padded(self, source: str, margin: int) -> str:
        name = _numbered("zero_padding2d", self._num_paddings)
        self._num_paddings += 1
        return self.net.zero_padding(name, source, margin)


def _numbered(name: str, index: int) -> str:
    """Keras's automatic names: ``add``, ``add_1``, ``add_2`` ..."""
    return f"{name}_{index}" if index else name


def _double_convolution(net: NetworkBuilder, name: str, source: str, filters: int) -> str:
    """Twice a 3x3 convolution, BatchNormalization and ReLU."""
    tensor = source
    for half in ("a", "b"):
        tensor = net.convolution(f"{name}{half}_conv", tensor, filters, 3, padding="same")
        tensor = net.batch_normalization(f"{name}{half}_bn", tensor)
        tensor = net.activation(f"{name}{half}_relu", tensor, "relu")
    return tensor


def _check_size(height: int, width: int, channels: int, *, multiple: int) -> None:
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise ValueError(f"height and width must be multiples of {multiple}, not {height} and {width}")
    if channels < 1:
        raise ValueError(f"there must be at least one channel, not {channels}")


ARCHITECTURES: dict[str, Callable[..., dict[str, object]]] = {"resunet": resunet, "small_unet": small_unet}


def to_json(document: dict[str, object]) -> str:
    """The text of a network file, readable and the same on every run."""
    return json.dumps(document, indent=1) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a network file as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rmldnn_torch.architectures", description="Write a network file.")
    parser.add_argument("architecture", choices=sorted(ARCHITECTURES))
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="height and width of the images")
    parser.add_argument("--channels", type=int, default=3, metavar="C", help="channels of the images [3]")
    options = parser.parse_args(arguments)
    try:
        document = ARCHITECTURES[options.architecture](*(options.size or ()), channels=options.channels)
    except ValueError as error:
        parser.error(str(error))
    try:
        options.out.write_text(to_json(document), encoding="utf-8")
    except OSError as error:
        parser.error(f"cannot write {str(options.out)!r}: {error.strerror or error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
