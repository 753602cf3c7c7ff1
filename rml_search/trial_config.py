"""From hyperparameters to the configuration document of a trial, and of inference on the best model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SearchOptions
from rml_search.paths import TrialPaths, Workspace
from rmldnn_contract.config import Configuration


def training_configuration(
    options: SearchOptions, hyperparameters: Hyperparameters, trial: TrialPaths, workspace: Workspace
) -> Configuration:
    """The document that trains one trial and evaluates every epoch on the test images."""
    locate = workspace.locate
    checkpoints = {"save": f"{locate(trial.checkpoints)}/", "interval": 1}
    if options.transfer_learning is not None:
        checkpoints["load"] = locate(options.transfer_learning)
    network: dict[str, Any] = {
        "outfile": locate(trial.outfile),
        "num_epochs": options.num_epochs,
        "layers": locate(options.layers),
        "checkpoints": checkpoints,
        "data": {
            "type": "images",
            **_folders(workspace, options.data, "train", "input_path", "target_path"),
            **_folders(workspace, options.data, "test", "test_input_path", "test_target_path"),
            "batch_size": options.batch_size,
            "test_batch_size": options.test_batch_size,
            "preload": True,
            **_masks_and_transforms(options),
        },
        "optimizer": _optimizer(options, hyperparameters),
        "loss": _loss(options, hyperparameters.loss),
    }
    return Configuration.model_validate({"neural_network": network})


def inference_configuration(
    options: SearchOptions, loss: str, workspace: Workspace, checkpoint: Path | None = None
) -> Configuration:
    """The document that runs a model (None: the best one) on the test images and writes its predictions."""
    locate = workspace.locate
    network: dict[str, Any] = {
        "layers": locate(workspace.best_layers),
        "checkpoints": {"load": locate(checkpoint or workspace.best_checkpoint)},
        "data": {
            "type": "images",
            **_folders(workspace, options.data, "test", "test_input_path", "test_target_path"),
            "test_output_path": f"{locate(workspace.predictions)}/",
            "test_batch_size": options.test_batch_size,
            **_masks_and_transforms(options),
        },
        "loss": _loss(options, loss),
    }
    return Configuration.model_validate({"neural_network": network})


def _folders(workspace: Workspace, data: Path, part: str, input_key: str, target_key: str) -> dict[str, str]:
    return {
        input_key: f"{workspace.locate(data / part / 'inputs')}/",
        target_key: f"{workspace.locate(data / part / 'targets')}/",
    }


def _masks_and_transforms(options: SearchOptions) -> dict[str, Any]:
    return {
        **({"input_grayscale": True} if options.grayscale else {}),
        "target_grayscale": True,
        "target_is_mask": True,
        "transforms": [{"resize": list(options.image_size)}],
    }


def _optimizer(options: SearchOptions, hyperparameters: Hyperparameters) -> dict[str, Any]:
    optimizer: dict[str, Any] = {"type": hyperparameters.optimizer, "learning_rate": hyperparameters.learning_rate}
    if options.lr_scheduler_gamma is not None:
        optimizer["lr_scheduler"] = {"type": "Exponential", "gamma": options.lr_scheduler_gamma, "verbose": True}
    return optimizer


def _loss(options: SearchOptions, function: str) -> dict[str, str]:
    return {"function": function, **({} if options.loss_source is None else {"source": options.loss_source})}
