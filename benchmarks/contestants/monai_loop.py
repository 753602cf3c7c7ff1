"""MONAI's SupervisedTrainer and SupervisedEvaluator, with its transforms and its cached data set."""

from __future__ import annotations

import logging
import os
import time

import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, PILReader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver, MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
)
from torch import nn

from contestants.case import LEARNING_RATE, WARM_UP_STEPS, Case, answer_steps, read_case, time_epochs
from contestants.torch_case import Logits, torch_batch, wait_for


def _trainer(case: Case, network: nn.Module, loader: object, **settings: object) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=torch.device(case.device),
        max_epochs=max(case.epochs, 1),
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=LEARNING_RATE),
        loss_function=nn.BCEWithLogitsLoss(),
        amp=case.precision == "bf16",  # for CUDA alone: on a CPU it changes nothing
        amp_kwargs={"dtype": torch.bfloat16} if case.precision == "bf16" else None,
        **settings,
    )


def _train(case: Case, network: nn.Module, folder: str) -> None:
    keys = ["image", "label"]
    load = Compose(
        [
            LoadImaged(keys="image", reader=PILReader(converter=lambda image: image.convert("RGB"))),
            LoadImaged(keys="label", reader=PILReader(converter=lambda image: image.convert("L"))),
            EnsureChannelFirstd(keys=keys),
            ScaleIntensityRanged(keys=keys, a_min=0, a_max=255, b_min=0, b_max=1),
            Resized(keys=keys, spatial_size=(case.size, case.size), mode=("bilinear", "nearest")),
        ]
    )
    workers = len(os.sched_getaffinity(0))

    def loader(split: str) -> DataLoader:
        files = [{"image": str(image), "label": str(mask)} for image, mask in case.files(split)]
        data = CacheDataset(files, load, num_workers=workers, progress=False)
        return DataLoader(data, batch_size=case.batch, shuffle=split == "train", num_workers=0)

    evaluator = SupervisedEvaluator(
        device=torch.device(case.device),
        val_data_loader=loader("test"),
        network=network,
        postprocessing=Compose([Activationsd(keys="pred", sigmoid=True), AsDiscreted(keys="pred", threshold=0.5)]),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        amp=case.precision == "bf16",
        amp_kwargs={"dtype": torch.bfloat16} if case.precision == "bf16" else None,
    )
    handlers = [
        ValidationHandler(interval=1, validator=evaluator),
        StatsHandler(output_transform=from_engine(["loss"], first=True)),
        CheckpointSaver(save_dir=folder, save_dict={"network": network}, save_interval=1),
    ]
    _trainer(case, network, loader("train"), train_handlers=handlers).run()


def _time_steps(case: Case, network: nn.Module) -> None:
    images, masks = torch_batch(case)
    trainer = _trainer(case, network, [{"image": images, "label": masks}] * (WARM_UP_STEPS + case.steps))
    times: list[float] = []

    def note_time() -> None:
        wait_for(case)
        times.append(time.perf_counter())

    trainer.add_event_handler(Events.ITERATION_STARTED | Events.ITERATION_COMPLETED, note_time)
    trainer.run()
    answer_steps(case, [end - start for start, end in zip(times[::2], times[1::2], strict=True)])


def main() -> None:
    logging.disable(logging.INFO)
    case = read_case()
    network = Logits(case).to(case.device)
    if case.steps:
        _time_steps(case, network)
    time_epochs(case, lambda folder: _train(case, network, str(folder)))


if __name__ == "__main__":
    main()
