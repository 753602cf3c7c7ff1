"""One run of the engine: from the document to ``All done``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from rmldnn_contract.config import NeuralNetwork
from rmldnn_contract.exit_status import CheckpointError
from rmldnn_contract.optimizer import Hessian
from rmldnn_contract.training_log import Finished
from rmldnn_torch import __version__
from rmldnn_torch.cuda_graphs import CudaGraphs, Recorder, Recordings
from rmldnn_torch.data import DataSettings
from rmldnn_torch.datasets import check_data_is_supported, open_test_data, open_training_data
from rmldnn_torch.devices import describe_device, select_device
from rmldnn_torch.distributed import Processes, gradient_reducer, join_processes
from rmldnn_torch.evaluation import Evaluator, prediction_outputs
from rmldnn_torch.graph_drawing import drawing_path, write_drawing
from rmldnn_torch.kept_network import kept_network
from rmldnn_torch.keras_graph import count_operations, read_network
from rmldnn_torch.launch import Launch
from rmldnn_torch.log import Histories, Log, Reporter
from rmldnn_torch.losses import build_loss
from rmldnn_torch.network import Network, count_parameters
from rmldnn_torch.optimizers import Optimization, build_optimization
from rmldnn_torch.options import Options
from rmldnn_torch.precision import Arithmetic, choose_arithmetic
from rmldnn_torch.shapes import ShapeCheck, num_axes
from rmldnn_torch.shared_samples import store
from rmldnn_torch.task import Task
from rmldnn_torch.trainer import Trainer
from rmldnn_torch.weights import LoadReport, assign


@dataclass(frozen=True)
class _Context:
    """What all parts of a run need."""

    document: NeuralNetwork
    options: Options
    processes: Processes
    device: torch.device
    log: Log


def run(document: NeuralNetwork, options: Options, launch: Launch, log: Log) -> None:
    """Trains, evaluates or infers, as the document says, and prints the log.

    Raises:
        EngineError: something that a person can mend; the subclass says what.
    """
    check_data_is_supported(document.data)
    make_repeatable(options)
    log.line(f"rmldnn-torch {__version__}: an open engine for rmldnn configurations, independent of RocketML")
    with join_processes(launch) as processes:
        _execute(_Context(document, options, processes, select_device(launch.rank), log))
    log.line(Finished().format())


def make_repeatable(options: Options) -> None:
    """Seeds torch, and keeps cuDNN to algorithms that give the same numbers each time, and float32 to its 24 bits.

    With ``deterministic`` torch also refuses, with an error, every other operation that could differ from run to run.
    """
    torch.manual_seed(options.seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # else convolutions of float32 numbers would round them to 10 bits
    torch.set_float32_matmul_precision("highest")  # NVIDIA's images ask for less (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)
    torch.use_deterministic_algorithms(options.deterministic)  # an earlier run of this process may have asked for it
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be repeatable
        # It costs time, and nothing reads such memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _execute(context: _Context) -> None:
    document, log, processes = context.document, context.log, context.processes
    _tell_devices(context)
    network = _build_network(context)
    arithmetic = _choose_arithmetic(context, network)
    optimization = _build_optimization(context, network)
    task = _build_task(context, network, arithmetic)
    num_input_axes, num_target_axes = num_axes(network)
    settings = DataSettings(
        num_classes=network.output_channels,
        ignore_index=task.ignore_index,
        device=context.device,
        seed=context.options.seed,
        share=processes.share,
        num_input_axes=num_input_axes,
        num_target_axes=num_target_axes,
    )
    training = open_training_data(document.data, settings, log)
    test = open_test_data(document.data, settings, log)
    store.free_the_device()
    if context.device.type == "cuda":
        log.line("*** CUDA available! Will train on GPU ***")
    # Each process has its own dropout; the first one draws what a single one would.
    torch.manual_seed(context.options.seed + processes.share.rank)
    outfile = document.outfile if processes.share.rank == 0 else None
    with Histories(outfile, trains=training is not None, evaluates=test is not None) as histories:
        reporter = Reporter(log, histories)
        outputs = prediction_outputs(document.data, processes.share.rank)
        evaluator = None if test is None else Evaluator(task, test, processes, reporter, outputs)
        if training is not None and optimization is not None:
            recordings = _recordings(context, task)
            trainer = Trainer(
                task, training, optimization, evaluator, processes, reporter, document.checkpoints, recordings
            )
            trainer.train(document.num_epochs)
        elif evaluator is not None:
            evaluator.evaluate(epoch=1, num_epochs=1)


def _tell_devices(context: _Context) -> None:
    num_processes = context.processes.share.num_processes
    context.log.block("Device(s)", {"Process 1": describe_device(context.device)})
    if num_processes > 1:
        context.log.block(
            "Gradient reducer", {"Type": gradient_reducer(num_processes), "Num of processes": num_processes}
        )


def _build_network(context: _Context) -> Network:
    layers: str | list[object] = (
        context.document.layers if isinstance(context.document.layers, str) else [*context.document.layers]
    )
    graph = read_network(layers)
    network = Network(graph)
    counts = count_parameters(network)
    context.log.block(
        "Neural Network",
        {
            "Model name": graph.name,
            "Total parameters": counts.total,
            "Trainable parameters": counts.trainable,
            "Num of operations": count_operations(graph),
        },
    )
    if context.document.debug and context.processes.share.rank == 0:
        write_drawing(drawing_path(context.document.outfile), network)
    path = context.document.checkpoints.load
    if path is not None:
        report = assign(kept_network.read_once(Path(path), network), Path(path), network)
        _tell_loading(path, report, context.log)
        if report.missing and context.document.data.input_path is None:
            raise CheckpointError(
                f"{path} lacks {len(report.missing)} weights of the network, {report.missing[0]} among them: without "
                "training they would stay random; load the checkpoint of this network"
            )
    if not _records(context):
        kept_network.forget()
        return place(network, context.device)
    taken_over = kept_network.take_over(network, context.device)
    return place(network, context.device) if taken_over is network else taken_over


def place(network: Network, device: torch.device) -> Network:
    """The network on the device, kernels of images in the order of axes in which convolutions are faster."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network.to(device)


def _tell_loading(path: str, report: LoadReport, log: Log) -> None:
    log.line(f"Loading model checkpoint from {'HDF5 file' if report.kind == 'h5' else 'file'}: {path}")
    for name, name_in_file in report.skipped:
        log.line(f"   Skipping parameter {name} ({name_in_file}): not found in model")
    for weight in report.mismatched:
        log.line(
            f"   Skipping parameter {weight.name} ({weight.file_name}): "
            f"shape {weight.file_shape} in file, {weight.model_shape} in model"
        )


def _build_optimization(context: _Context, network: Network) -> Optimization | None:
    document = context.document.optimizer
    if document is None:
        return None
    context.log.block("Optimizer", document.model_dump(exclude={"lr_scheduler"}))
    scheduler = document.lr_scheduler
    context.log.block("Learning rate scheduler", {"type": "none"} if scheduler is None else scheduler.model_dump())
    return build_optimization(document, network.parameters())


def _records(context: _Context) -> bool:
    """Whether training steps are to be recorded, and can be.

    An optimizer that searches draws the same random numbers again for each of its looks, a recording new ones.
    """
    is_asked_for = context.options.cuda_graphs and context.processes.share.num_processes == 1
    return is_asked_for and not isinstance(context.document.optimizer, Hessian | None)


def _recordings(context: _Context, task: Task) -> Recordings | None:
    """Of the steps that this run may have in common with others of the same worker."""
    recorder = recorder_of(context.device) if _records(context) else None
    if recorder is None:
        return None
    loss = None if context.document.loss is None else context.document.loss.model_dump_json()
    about = (loss, task.ignore_index, task.arithmetic.precision, context.options.deterministic)
    return kept_network.recordings(task.network, context.device, recorder, about)


def recorder_of(device: torch.device) -> Recorder | None:
    """What records work on the device; None on a CPU, to which nothing is launched."""
    return CudaGraphs(device) if device.type == "cuda" else None


def _choose_arithmetic(context: _Context, network: Network) -> Arithmetic:
    """The precision asked for; by itself bf16 only where a network tells classes apart.

    What it predicts otherwise are values, which bf16 would round to eight bits; and the line search of the Hessian
    optimizer compares losses that bf16 cannot tell apart.
    """
    needs_float32 = network.output_activation == "linear" or isinstance(context.document.optimizer, Hessian)
    arithmetic = choose_arithmetic(context.options.precision, context.device, needs_float32=needs_float32)
    context.log.line(f"Precision: {arithmetic.precision}")
    return arithmetic


def _build_task(context: _Context, network: Network, arithmetic: Arithmetic) -> Task:
    document, check_shapes = context.document.loss, ShapeCheck(network, context.log)
    if document is None:
        return Task(network, None, None, check_shapes, arithmetic)
    context.log.block("Loss", document.model_dump(exclude_none=True))
    loss = build_loss(document, network.output_activation, network.output_channels)
    return Task(network, loss, document.ignore_index, check_shapes, arithmetic)
