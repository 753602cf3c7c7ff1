"""From hyperparameters to the configuration document of a trial, and of inference on the best model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SearchOptions
from rml_search.paths import ModelPaths, TrialPaths, Workspace
from rml_search.search_space import LAYERS, SEED, Dimension, Value
from rml_search.space_file import LEFT_OUT
from rml_search.validation import validation_data
from rmldnn_contract.config import Configuration, describe_validation_error
from rmldnn_contract.data import RANDOM_GEOMETRY
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_contract.names import canonical_name
from rmldnn_contract.optimizer import OPTIMIZERS

#: What has a place in the document of a training only.
_OF_TRAINING = ("input_path", "target_path", "batch_size", "preload")
#: What a person's own configuration writes: a search decides itself what is written where.
_OUTPUTS = ("test_output_path", "hdf5_outfile")
_TRANSFORMS = ("transforms", "input_transforms", "target_transforms")


def training_configuration(
    options: SearchOptions, hyperparameters: Hyperparameters, trial: TrialPaths, workspace: Workspace
) -> Configuration:
    """The document that trains one trial and evaluates every epoch on the test images.

    Raises:
        ConfigurationError: there is no such document, since the values of a person's search space do not fit.
    """
    locate = workspace.locate
    network = _network(options, hyperparameters, workspace, validation_data(options, workspace))
    checkpoints = {**network.get("checkpoints", {}), "save": f"{locate(trial.checkpoints)}/", "interval": 1}
    if options.transfer_learning is not None:
        checkpoints["load"] = locate(options.transfer_learning)
    data = {key: value for key, value in network["data"].items() if key not in _OUTPUTS}
    return _validated({**network, "outfile": locate(trial.outfile), "checkpoints": checkpoints, "data": data})


def inference_configuration(
    options: SearchOptions, hyperparameters: Hyperparameters, workspace: Workspace, model: ModelPaths | None = None
) -> Configuration:
    """The document that runs a model (None: the best one) on the test images and writes its predictions.

    Random geometry of a training has no place in it: predictions shall lie over the images.
    """
    locate, model = workspace.locate, model or workspace.best
    training = _network(options, hyperparameters, workspace, options.data)
    data = {key: value for key, value in training["data"].items() if key not in (*_OF_TRAINING, *_OUTPUTS)}
    for key in _TRANSFORMS:
        if data.get(key):
            data[key] = [step for step in data[key] if not RANDOM_GEOMETRY.intersection(step)]
    predictions = {"test_output_path": f"{locate(workspace.predictions)}/"}
    if "hdf5_outfile" in training["data"]:
        predictions["hdf5_outfile"] = locate(workspace.predictions / Path(training["data"]["hdf5_outfile"]).name)
    network = {
        "layers": locate(model.layers),
        "checkpoints": {"load": locate(model.checkpoint)},
        "data": {**data, **predictions},
        "loss": training["loss"],
    }
    return _validated(network)


def network_index(options: SearchOptions, hyperparameters: Hyperparameters) -> int:
    """Which of the network files these hyperparameters name."""
    name = dict(hyperparameters.others).get(LAYERS)
    return 0 if name is None else options.network_names.index(str(name))


def _network(
    options: SearchOptions, hyperparameters: Hyperparameters, workspace: Workspace, data: Path | None
) -> dict[str, Any]:
    """The section ``neural_network`` of a training on ``data``, but for where the trial writes."""
    index = network_index(options, hyperparameters)
    base = {} if options.base is None else options.base.network
    folders = _folders(workspace, data)
    network = {
        **base,
        "num_epochs": options.num_epochs,
        "layers": workspace.locate(workspace.trial_layers(index)),
        "data": {**(_data(options, index) if options.base is None else _own_data(options, base)), **folders},
        "optimizer": _optimizer(options, hyperparameters, base.get("optimizer", {})),
        "loss": _loss(options, index, hyperparameters.loss, base.get("loss", {})),
    }
    values = dict(hyperparameters.others)
    for dimension in options.space.others:
        if dimension.name in values and dimension.name not in {LAYERS, SEED}:
            put(network, dimension, values[dimension.name])
    return network


def put(network: dict[str, Any], dimension: Dimension, value: Value) -> None:
    """Puts a value of a dimension in its place in the document; sections on the way are made where they are missing.

    Raises:
        ConfigurationError: on the way is something that has no keys.
    """
    *way, last = dimension.path.split(".")
    section: Any = network
    for key in way:
        section = section.setdefault(key, {}) if isinstance(section, dict) else _item(section, key, dimension)
    wanted = dimension.domain.in_document(value)
    if isinstance(section, list):
        _item(section, last, dimension)
        section[int(last)] = wanted
    elif not isinstance(section, dict):
        raise ConfigurationError(f"{dimension.path} is not a path in the configuration")
    elif wanted == LEFT_OUT and isinstance(wanted, Mapping):
        section.pop(last, None)
    else:
        section[last] = wanted


def _item(section: Any, key: str, dimension: Dimension) -> Any:
    if isinstance(section, list) and key.isdecimal() and int(key) < len(section):
        return section[int(key)]
    raise ConfigurationError(f"{dimension.path} is not a path in the configuration: there is no {key}")


def _data(options: SearchOptions, index: int) -> dict[str, Any]:
    is_gray = index < len(options.networks) and options.networks[index].input_channels == 1
    data: dict[str, Any] = {
        "type": "images",
        "batch_size": options.batch_size,
        "test_batch_size": options.test_batch_size,
        "preload": True,
        **({"input_grayscale": True} if is_gray else {}),
        "target_grayscale": True,
        "target_is_mask": True,
    }
    return data if options.image_size is None else {**data, "transforms": [{"resize": list(options.image_size)}]}


def _own_data(options: SearchOptions, base: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the person's own configuration, with what they said besides."""
    data = {**base["data"], "batch_size": options.batch_size, "test_batch_size": options.test_batch_size}
    if options.image_size is not None:
        for key in _TRANSFORMS:
            if key in data or (key == "transforms" and "input_transforms" not in data):
                others = [step for step in data.get(key) or () if "resize" not in step]
                data[key] = [{"resize": list(options.image_size)}, *others]
    return data


def _folders(workspace: Workspace, data: Path | None) -> dict[str, str]:
    if data is None:
        return {}
    keys = {"train": ("input_path", "target_path"), "test": ("test_input_path", "test_target_path")}
    return {
        key: f"{workspace.locate(data / part / kind)}/"
        for part, names in keys.items()
        for key, kind in zip(names, ("inputs", "targets"), strict=True)
    }


def _optimizer(options: SearchOptions, point: Hyperparameters, own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the person's own optimizer go along as far as the one that is tried has them too."""
    known = OPTIMIZERS[canonical_name(point.optimizer, OPTIMIZERS) or ""].model_fields
    kept = {key: value for key, value in own.items() if key in known}
    optimizer = {**kept, "type": point.optimizer, "learning_rate": point.learning_rate}
    if options.lr_scheduler_gamma is not None:
        optimizer["lr_scheduler"] = {"type": "Exponential", "gamma": options.lr_scheduler_gamma, "verbose": True}
    return optimizer


def _loss(options: SearchOptions, index: int, function: str, own: Mapping[str, Any]) -> dict[str, Any]:
    source = options.networks[index].loss_source if index < len(options.networks) else None
    return {**own, "function": function, **({} if source is None else {"source": source})}


def _validated(network: Mapping[str, Any]) -> Configuration:
    try:
        return Configuration.model_validate({"neural_network": network})
    except ValidationError as error:
        raise ConfigurationError(describe_validation_error(error)) from None
