"""Several trials of one network in one fused training, against the same trainings one after another.

    python benchmarks/fused_training.py [--size 32 96] [--batch 8] [--copies 4] [--steps 5] [--rounds 5]

Fused as in Wang et al., "Horizontally Fused Training Array", MLSys 2021: the copies of the network see the same batch,
and each has its own weights and its own learning rate. ``grouped`` puts their channels side by side and makes each
convolution one with a group for each copy; ``vmap`` is torch's own way, with stacked weights. All cores work on each
way; the ways take turns in every round, after three steps each in which the losses of the fused copies must be those of
the separate trainings. Printed are the medians over the rounds: images per second (an image counts once for each
copy), and the speed as a multiple of one after another.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from one_training import CHECKOUT
from rmldnn_torch.allocator import keep_freed_memory
from rmldnn_torch.openmp import wait_briefly

keep_freed_memory()
wait_briefly()

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional

from rmldnn_contract.optimizer import Adam
from rmldnn_torch.devices import describe_device, select_device
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.layers.activation import Activation
from rmldnn_torch.layers.convolution import Convolution
from rmldnn_torch.layers.merge import Concatenate
from rmldnn_torch.layers.normalization import BatchNormalization
from rmldnn_torch.layers.pooling import MaxPooling
from rmldnn_torch.layers.shape import UpSampling
from rmldnn_torch.network import Network
from rmldnn_torch.optimizers import Optimization, build_optimization
from rmldnn_torch.run import place

# Trains every copy on one batch of images and masks, (batch, channels, height, width); gives the losses, (copies,).
Step = Callable[[Tensor, Tensor], Tensor]

AS_THEY_ARE = (Activation, MaxPooling, UpSampling)  # each channel by itself
DEVICE = select_device()
LEARNING_RATE = 1e-3  # of the first copy; half as much for each further one
# Of the loss in the first step and in later ones: sums in another order differ in their last digits, and Adam makes
# whole steps of the smallest gradients. Another learning rate would show in the second step.
TOLERANCES = (1e-5, 1e-3, 1e-3)


class ConcatenateCopies(nn.Module):
    """Joins inputs of (batch, copies * channels, height, width) copy by copy, where the channels lie last in memory."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = [tensor.movedim(1, -1) for tensor in inputs]
        by_copy = [part.reshape(*part.shape[:-1], self.copies, -1) for part in parts]
        return torch.cat(by_copy, dim=-1).flatten(-2).movedim(-1, 1)


class PlainUpSampling(nn.Module):
    """Pixels repeated as torch does it: vmap does not take the engine's own gradient."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(map(float, factors))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.interpolate(inputs, scale_factor=self.factors, mode="nearest")


def grouped(networks: Sequence[Network]) -> Network:
    """One network over the channels of all of them, with their weights one after the other."""
    fused = copy.deepcopy(networks[0])
    for name, layer in list(fused.named_children()):
        if isinstance(layer, Convolution):
            layer.groups *= len(networks)
        elif isinstance(layer, Concatenate):
            setattr(fused, name, ConcatenateCopies(len(networks)))
        elif not isinstance(layer, (BatchNormalization, *AS_THEY_ARE)):
            sys.exit(f"layer {name!r} ({type(layer).__name__}) has no fused form here")
    for name, parameter in fused.named_parameters():
        parameter.data = torch.cat([network.get_parameter(name).detach() for network in networks])
    for name, buffer in fused.named_buffers():
        buffer.data = torch.cat([network.get_buffer(name) for network in networks])
    return place(fused, DEVICE)


def optimization(parameters: Iterable[nn.Parameter], rate: float) -> Optimization:
    return build_optimization(Adam(type="Adam", learning_rate=rate), parameters)


def separate_step(networks: Sequence[Network], rates: Sequence[float]) -> Step:
    optimizations = [optimization(net.parameters(), rate) for net, rate in zip(networks, rates, strict=True)]

    def train(network: Network, optimization: Optimization, images: Tensor, masks: Tensor) -> Tensor:
        optimization.clear_gradients()
        loss = functional.binary_cross_entropy_with_logits(network.forward_logits(images)[0], masks)
        torch.autograd.backward(loss)
        optimization.step()
        return loss.detach()

    def step(images: Tensor, masks: Tensor) -> Tensor:
        return torch.stack([train(*pair, images, masks) for pair in zip(networks, optimizations, strict=True)])

    return step


def fused_step(logits: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], rates: Sequence[float]) -> Step:
    """``logits`` takes images to (copies, batch, 1, height, width); ``parameters`` hold those of the copies in turn."""
    copies = len(rates)
    views = [[nn.Parameter(parameter.detach().chunk(copies)[i]) for parameter in parameters] for i in range(copies)]
    optimizations = [optimization(of_copy, rate) for of_copy, rate in zip(views, rates, strict=True)]

    def step(images: Tensor, masks: Tensor) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        output = logits(images)
        losses = functional.binary_cross_entropy_with_logits(output, masks.expand_as(output), reduction="none")
        losses = losses.flatten(1).mean(1)
        torch.autograd.backward(losses.sum())
        for i, (of_copy, one) in enumerate(zip(views, optimizations, strict=True)):
            for view, parameter in zip(of_copy, parameters, strict=True):
                assert parameter.grad is not None
                view.grad = parameter.grad.chunk(copies)[i]
            one.step()
        return losses.detach()

    return step


def grouped_step(networks: Sequence[Network], rates: Sequence[float]) -> Step:
    copies = len(networks)
    fused = grouped(networks)
    fused.train()

    def logits(images: Tensor) -> Tensor:
        output, _ = fused.forward_logits(torch.cat([images] * copies, dim=1))
        return torch.stack(output.chunk(copies, dim=1))

    return fused_step(logits, list(fused.parameters()), rates)


class Logits(nn.Module):
    """A network without its last activation, in layers that vmap takes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for name, layer in list(self.network.named_children()):
            if isinstance(layer, UpSampling):
                setattr(self.network, name, PlainUpSampling(layer.factors))

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_logits(images)[0]


def vmap_step(networks: Sequence[Network], rates: Sequence[float]) -> Step:
    modules = [Logits(network) for network in networks]
    parameters, buffers = stack_module_state(modules)

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        output: Tensor = functional_call(modules[0], (parameters, buffers), (images,))
        return output

    def logits(images: Tensor) -> Tensor:
        output: Tensor = mapped(parameters, buffers, images)
        return output

    mapped = torch.vmap(one, in_dims=(0, 0, None), randomness="different")
    return fused_step(logits, list(parameters.values()), rates)


WAYS: dict[str, Callable[[Sequence[Network], Sequence[float]], Step]] = {
    "one after another": separate_step,
    "fused, grouped": grouped_step,
    "fused, vmap": vmap_step,
}


def networks_of(copies: int) -> list[Network]:
    """The small network with other initial weights for each copy."""
    torch.manual_seed(0)
    networks = [place(Network(read_network(str(CHECKOUT / "layers_small_unet.json"))), DEVICE) for _ in range(copies)]
    return [network.train() for network in networks]


def check(losses: dict[str, list[Tensor]]) -> None:
    """Ends the program unless all ways had the losses of one after another in every step."""
    first, *others = WAYS
    for way in others:
        pairs = zip(losses[way], losses[first], strict=True)
        errors = [float(((fused - separate) / separate).abs().max()) for fused, separate in pairs]
        print(f"{way}: losses of {len(TOLERANCES)} steps within {max(errors):.0e} of those one after another")
        if not all(error <= tolerance for error, tolerance in zip(errors, TOLERANCES, strict=True)):
            sys.exit(f"{way} is another training: its losses differ by {errors}, and may by {TOLERANCES}")


def measure(size: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """The images per second of each way, one number for each round."""
    images = torch.rand(options.batch, size, size, 3).movedim(-1, 1).to(DEVICE)  # channels last, as the engine has them
    masks = (images.mean(dim=1, keepdim=True) > 0.5).float()
    rates = [LEARNING_RATE / 2**number for number in range(options.copies)]
    networks = networks_of(options.copies)
    steps = {way: build([copy.deepcopy(network) for network in networks], rates) for way, build in WAYS.items()}
    check({way: [step(images, masks) for _ in TOLERANCES] for way, step in steps.items()})
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, step in steps.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                step(images, masks).tolist()  # which waits for the device
            seconds = time.perf_counter() - start
            speeds[way].append(options.steps * options.copies * options.batch / seconds)
    return speeds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[32, 96])
    for name, default in (("batch", 8), ("copies", 4), ("steps", 5), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(json.dumps(vars(options)), f"on {describe_device(DEVICE)}", flush=True)
    rows = []
    for size in options.size:
        speeds = measure(size, options)
        medians = {way: statistics.median(numbers) for way, numbers in speeds.items()}
        baseline = medians["one after another"]
        rows += [
            [f"{size}x{size}", way, f"{median:.1f}", f"{min(speeds[way]):.1f}-{max(speeds[way]):.1f}", f"{ratio:.2f}"]
            for way, median in medians.items()
            for ratio in [median / baseline]
        ]
    heads = ["images", "way", "images/s", "min-max", "ratio"]
    print(tabulate(rows, headers=heads, tablefmt="rst", disable_numparse=True))


if __name__ == "__main__":
    main()
