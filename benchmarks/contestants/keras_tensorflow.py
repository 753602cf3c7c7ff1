"""Keras 2 on TensorFlow: ``fit`` over a tf.data pipeline that keeps decoded images in memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from contestants.case import LEARNING_RATE, WARM_UP_STEPS, Case, answer_steps, random_batch, read_case, time_epochs
from contestants.keras_case import network_document, policy, save_weights


class _StepTimes(tf_keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def _compiled(case: Case) -> tf_keras.Model:
    tf_keras.mixed_precision.set_global_policy(policy(case))
    model = tf_keras.models.model_from_json(network_document(case))
    model.compile(
        tf_keras.optimizers.Adam(LEARNING_RATE),
        "binary_crossentropy",
        metrics=[] if case.steps else ["binary_accuracy"],
    )
    return model


def _images(case: Case, split: str) -> tf.data.Dataset:
    def load(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.io.decode_png(tf.io.read_file(image), channels=3)
        inside = tf.io.decode_png(tf.io.read_file(mask), channels=1)
        size = (case.size, case.size)
        return tf.image.resize(pixels, size) / 255.0, tf.cast(
            tf.image.resize(inside, size, "nearest") > 127, tf.float32
        )

    images, masks = zip(*((str(image), str(mask)) for image, mask in case.files(split)), strict=True)
    data = tf.data.Dataset.from_tensor_slices((list(images), list(masks)))
    data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE).cache()
    if split == "train":
        data = data.shuffle(len(images))
    return data.batch(case.batch).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    case = read_case()
    model = _compiled(case)
    if case.steps:
        batch = tf.data.Dataset.from_tensors(random_batch(case)).cache().repeat(WARM_UP_STEPS + case.steps)
        times = _StepTimes()
        model.fit(batch, verbose=0, callbacks=[times])
        answer_steps(case, times.seconds)

    def train(folder: Path) -> None:
        data = {split: _images(case, split) for split in ("train", "test")}
        saving = tf_keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _logs: save_weights(model, folder, epoch))
        model.fit(data["train"], epochs=case.epochs, validation_data=data["test"], verbose=2, callbacks=[saving])

    time_epochs(case, train)


if __name__ == "__main__":
    main()
