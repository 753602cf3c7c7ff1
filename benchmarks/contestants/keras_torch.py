"""Keras 3 on its PyTorch backend: ``fit`` over a DataLoader."""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from keras.src.models.functional import Functional
from torch.utils.data import DataLoader, Dataset

from contestants.case import LEARNING_RATE, WARM_UP_STEPS, Case, answer_steps, random_batch, read_case, time_epochs
from contestants.keras_case import network_document, policy, save_weights
from contestants.torch_case import Images


class _StepTimes(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


class _ChannelsLast(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self.images[index]
        return image.permute(1, 2, 0), mask.permute(1, 2, 0)


def _compiled(case: Case) -> keras.Model:
    keras.config.set_dtype_policy(policy(case))
    model = keras.models.model_from_json(network_document(case), custom_objects={"Functional": Functional})
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy", metrics=[] if case.steps else ["binary_accuracy"]
    )
    return model


def main() -> None:
    case = read_case()
    model = _compiled(case)
    if case.steps:
        images, masks = random_batch(case)
        times = _StepTimes()
        batches = ((images, masks) for _ in range(WARM_UP_STEPS + case.steps))
        model.fit(batches, steps_per_epoch=WARM_UP_STEPS + case.steps, verbose=0, callbacks=[times])
        answer_steps(case, times.seconds)

    def train(folder: Path) -> None:
        workers = len(os.sched_getaffinity(0))
        data = {
            split: DataLoader(
                _ChannelsLast(Images(case, split)), case.batch, shuffle=split == "train", num_workers=workers
            )
            for split in ("train", "test")
        }
        saving = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _logs: save_weights(model, folder, epoch))
        model.fit(data["train"], epochs=case.epochs, validation_data=data["test"], verbose=2, callbacks=[saving])

    time_epochs(case, train)


if __name__ == "__main__":
    main()
