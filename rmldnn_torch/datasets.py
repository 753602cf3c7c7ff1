"""Which data sets the document names, opened and told in the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rmldnn_contract.data import Data, DataType, Transform
from rmldnn_contract.exit_status import ConfigurationError, DataError
from rmldnn_torch.array_source import array_inputs, array_targets, slice_inputs, slice_targets
from rmldnn_torch.arrays import ArrayFile, list_arrays, open_array
from rmldnn_torch.data import DataSettings, Loader, TargetKind
from rmldnn_torch.image_source import image_inputs, image_targets
from rmldnn_torch.images import list_images
from rmldnn_torch.labels import LabelSource, check_classes, class_names, read_labels
from rmldnn_torch.log import Log
from rmldnn_torch.sample_files import SampleFile, pair
from rmldnn_torch.slicing import Slices, slice_sets
from rmldnn_torch.sources import SampleDataset, Source
from rmldnn_torch.transforms import TransformPlan, plan_transforms


@dataclass(frozen=True)
class _Part:
    """The training samples, or those of the test."""

    name: str
    inputs: Path
    targets: Path | None
    tag: str | None
    batch_size: int

    @property
    def is_training(self) -> bool:
        return self.name == "training"


@dataclass(frozen=True)
class _Opening:
    """What opening the samples of a part needs."""

    part: _Part
    data: Data
    plans: tuple[TransformPlan, TransformPlan]
    settings: DataSettings
    log: Log


def open_training_data(data: Data, settings: DataSettings, log: Log) -> Loader | None:
    """The training samples, in a new order in each epoch; None where the document names none."""
    if data.input_path is None:
        return None
    part = _Part("training", Path(data.input_path), _path(data.target_path), data.training_tag, data.batch_size)
    return _open(part, data, settings, log)


def open_test_data(data: Data, settings: DataSettings, log: Log) -> Loader | None:
    """The test samples in the order of their names, without random geometry; None where the document names none."""
    if data.test_input_path is None:
        return None
    part = _Part("test", Path(data.test_input_path), _path(data.test_target_path), data.test_tag, data.test_batch_size)
    return _open(part, data, settings, log)


def _path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def check_data_is_supported(data: Data) -> None:
    """Refuses what does not go together, before anything else is done."""
    if data.inputs_are == "labels":
        raise ConfigurationError("labels are targets: set data.input_type to images, and data.target_type to labels")
    if data.slicers is not None and not {data.inputs_are, data.targets_are} <= {"numpy", "hdf5"}:
        raise ConfigurationError("data.slicers cut arrays: they need the types numpy or hdf5, for inputs and targets")
    if data.targets_are == "labels":
        for key in ("target_path", "test_target_path"):
            if getattr(data, key) is not None:
                raise ConfigurationError(f"data.{key} is given, but labels come from the folders of the inputs")
        return
    for key in ("training_tag", "test_tag"):
        if getattr(data, key) is not None:
            raise ConfigurationError(f"data.{key} tells where labels are: set data.target_type to labels")
    if data.input_path is not None and data.target_path is None:
        raise ConfigurationError("data.target_path is missing, and data.input_path asks for training")


def _open(part: _Part, data: Data, settings: DataSettings, log: Log) -> Loader:
    plans = (
        plan_transforms(data.transforms_of_inputs, training=part.is_training),
        plan_transforms(data.transforms_of_targets, training=part.is_training),
    )
    opening = _Opening(part, data, plans, settings, log)
    dataset = _open_slices(opening) if data.slicers is not None else _open_files(opening)
    _check_transforms(opening, dataset.target_kind)
    loader = Loader(dataset, *plans, part.batch_size, settings, shuffle=part.is_training)
    _report(loader, part.name, data, log)
    return loader


def _check_transforms(opening: _Opening, target_kind: TargetKind | None) -> None:
    """Geometry and colours belong to images, and to arrays of two axes."""
    settings = opening.settings
    checked = [(opening.plans[0], settings.num_input_axes)]
    if target_kind not in {None, TargetKind.LABELS}:
        checked.append((opening.plans[1], settings.num_target_axes))
    if any(num_axes != 2 and (plan.once or plan.each_time or plan.patches) for plan, num_axes in checked):
        raise ConfigurationError("transforms but normalize need samples of two axes: remove them, or use slices of two")


# --- samples in files of their own


def _open_files(opening: _Opening) -> SampleDataset:
    data, part = opening.data, opening.part
    _tell_discovery(opening, "input", data.inputs_are)
    files = _list(part.inputs, data.inputs_are)
    targets, kind = _open_targets(opening, files)
    names = tuple(file.name for file in files)
    return SampleDataset(data.inputs_are, names, _open_inputs(opening, files), targets, kind)


def _tell_discovery(opening: _Opening, role: str, kind: DataType) -> None:
    opening.log.line(f"Discovering {opening.part.name} {role} {'images' if kind == 'images' else 'arrays'}...")


def _list(path: Path, kind: DataType) -> Sequence[SampleFile]:
    return list_arrays(path, kind) if kind in {"numpy", "hdf5"} else list_images(path)


def _open_inputs(opening: _Opening, files: Sequence[SampleFile]) -> Source:
    arguments = opening.data, opening.plans[0], opening.settings
    arrays = [file for file in files if isinstance(file, ArrayFile)]
    return array_inputs(arrays, *arguments) if arrays else image_inputs(files, *arguments)


def _open_targets(opening: _Opening, inputs: Sequence[SampleFile]) -> tuple[Source | None, TargetKind | None]:
    data, path = opening.data, opening.part.targets
    if data.targets_are == "labels":
        return _open_labels(opening, inputs), TargetKind.LABELS
    if path is None:
        return None, None
    _tell_discovery(opening, "target", data.targets_are)
    arguments = data, opening.plans[1], opening.settings
    targets = pair(inputs, _list(path, data.targets_are))
    arrays = [target for target in targets if isinstance(target, ArrayFile)]
    return array_targets(arrays, *arguments) if arrays else image_targets(targets, *arguments)


def _open_labels(opening: _Opening, inputs: Sequence[SampleFile]) -> LabelSource:
    """The labels of the inputs; what classes there are, the training samples tell wherever there are any."""
    data, labels = opening.data, read_labels(inputs, opening.part.tag)
    classes = class_names(labels)
    if not opening.part.is_training and data.input_path is not None:
        classes = class_names(read_labels(_list(Path(data.input_path), data.inputs_are), data.training_tag))
    check_classes(classes, labels, opening.settings, are_trained=data.input_path is not None)
    opening.log.block("Labels", {"Num classes": len(classes), "Classes": ", ".join(classes)})
    return LabelSource(labels, classes)


# --- slices of one array


def _open_slices(opening: _Opening) -> SampleDataset:
    data, part, settings = opening.data, opening.part, opening.settings
    _tell_discovery(opening, "input", data.inputs_are)
    inputs = _single_array(part.inputs, data.inputs_are)
    shape = open_array(inputs).shape
    slices = Slices(slice_sets(data.slicers or (), shape))
    _check_dimensions(slices, settings.num_input_axes)
    for cut in slices.sets:
        opening.log.line(f"Slicer {cut.name}: {len(cut)} samples of {'x'.join(map(str, cut.shape))}")
    targets, kind = None, None
    if part.targets is not None:
        _tell_discovery(opening, "target", data.targets_are)
        _check_dimensions(slices, settings.num_target_axes)
        file = _single_array(part.targets, data.targets_are)
        if open_array(file).shape != shape:
            raise DataError(f"{inputs} and {file} differ in shape: slices need arrays of the same shape")
        targets, kind = slice_targets(file, slices, data, opening.plans[1], settings)
    source = slice_inputs(inputs, slices, data, opening.plans[0], settings)
    return SampleDataset(data.inputs_are, slices.names, source, targets, kind, slices)


def _single_array(path: Path, kind: DataType) -> ArrayFile:
    files = [file for file in _list(path, kind) if isinstance(file, ArrayFile)]
    if len(files) != 1:
        raise DataError(f"{path} holds {len(files)} arrays: slicers cut a single one, so name its file")
    return files[0]


def _check_dimensions(slices: Slices, num_axes: int) -> None:
    num_dimensions = slices.sets[0].slicer.num_dimensions
    if num_dimensions != num_axes:
        raise DataError(
            f"the slices have {num_dimensions} dimensions, the network works on {num_axes}: "
            "a size of 1 drops a dimension, any other keeps it"
        )


# --- the log


def _report(loader: Loader, part: str, data: Data, log: Log) -> None:
    num_samples = len(loader.dataset.names)
    what = "images" if loader.dataset.kind == "images" else "samples"
    transforms: tuple[Transform, ...] = data.transforms_of_inputs
    log.block(
        f"Dataset ({part})",
        {
            "Type": loader.dataset.kind,
            f"Num {what} (total)": num_samples,
            f"Num {what} (per process)": ceil(num_samples / loader.settings.share.num_processes),
            "Batch size (requested)": loader.batch_size,
            "Batch size (per process)": loader.batch_size_per_process,
            "Num batches (per process)": len(loader),
            "Transforms": ", ".join(json.dumps(step.model_dump(mode="json")) for step in transforms) or "none",
        },
    )
