"""Which data sets the document names, opened and told in the log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rmldnn_contract.data import Data, Transform
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_torch.data import DataSettings, Loader
from rmldnn_torch.image_dataset import open_image_folders
from rmldnn_torch.log import Log
from rmldnn_torch.transforms import plan_transforms

_NOT_YET = ("slicers", "hdf5_outfile", "training_tag", "test_tag")


@dataclass(frozen=True)
class _Part:
    """The training samples, or those of the test."""

    name: str
    inputs: str
    targets: str | None
    batch_size: int

    @property
    def is_training(self) -> bool:
        return self.name == "training"


def open_training_data(data: Data, settings: DataSettings, log: Log) -> Loader | None:
    """The training samples, in a new order in each epoch; None where the document names none."""
    if data.input_path is None:
        return None
    part = _Part("training", data.input_path, data.target_path, data.batch_size)
    return _open(part, data, settings, log)


def open_test_data(data: Data, settings: DataSettings, log: Log) -> Loader | None:
    """The test samples in the order of their names, without random geometry; None where the document names none."""
    if data.test_input_path is None:
        return None
    part = _Part("test", data.test_input_path, data.test_target_path, data.test_batch_size)
    return _open(part, data, settings, log)


def check_data_is_supported(data: Data) -> None:
    """Refuses what the engine cannot read yet, before anything else is done."""
    for kind in (data.inputs_are, data.targets_are):
        if kind != "images":
            raise ConfigurationError(f"data of the type {kind!r} cannot be read by this engine yet; images can")
    for key in _NOT_YET:
        if getattr(data, key) is not None:
            raise ConfigurationError(f"data.{key} is not supported by this engine yet: remove it")
    if data.input_path is not None and data.target_path is None:
        raise ConfigurationError("data.target_path is missing, and data.input_path asks for training")


def _open(part: _Part, data: Data, settings: DataSettings, log: Log) -> Loader:
    log.line(f"Discovering {part.name} input images...")
    if part.targets is not None:
        log.line(f"Discovering {part.name} target images...")
    plans = (
        plan_transforms(data.transforms_of_inputs, training=part.is_training),
        plan_transforms(data.transforms_of_targets, training=part.is_training),
    )
    folders = (Path(part.inputs), None if part.targets is None else Path(part.targets))
    dataset = open_image_folders(folders, data, plans, settings)
    loader = Loader(dataset, *plans, part.batch_size, settings, shuffle=part.is_training)
    _report(loader, part.name, data.transforms_of_inputs, log)
    return loader


def _report(loader: Loader, part: str, transforms: tuple[Transform, ...], log: Log) -> None:
    num_images = len(loader.dataset.names)
    log.block(
        f"Dataset ({part})",
        {
            "Type": loader.dataset.kind,
            "Num images (total)": num_images,
            "Num images (per process)": ceil(num_images / loader.settings.share.num_processes),
            "Batch size (requested)": loader.batch_size,
            "Batch size (per process)": loader.batch_size_per_process,
            "Num batches (per process)": len(loader),
            "Transforms": ", ".join(json.dumps(step.model_dump(mode="json")) for step in transforms) or "none",
        },
    )
