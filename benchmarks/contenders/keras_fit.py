"""Keras 3, as a user would write it: two LSTM layers in a Sequential, `fit` and `evaluate`."""

import os
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.contender import CLASSES, DROPOUT, LEARNING_RATE, Contender, Work, drawn, run


class KerasFit(Contender):
    """The compiled model."""

    def __init__(self, work: Work) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(work.threads)
        tf.config.threading.set_inter_op_parallelism_threads(work.threads)
        keras.utils.set_random_seed(0)
        self.work = work
        self.train_images, self.train_labels = data(work.train_images, work, 0)
        self.test_images, self.test_labels = data(work.test_images, work, 1)
        self.model = keras.Sequential(
            [
                layers.Input((work.rows, work.pixels)),
                layers.LSTM(work.hidden_size, return_sequences=True),
                layers.Dropout(DROPOUT),
                layers.LSTM(work.hidden_size),
                layers.Dropout(DROPOUT),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        self.model.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    def step(self) -> None:
        raise NotImplementedError("`fit` makes the steps: `train` measures them")

    def train(self, steps: int) -> float:
        """Times the batches of `fit` from the end of the first to the end of the last."""
        ends: list[float] = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
        )
        self.model.fit(
            self.train_images,
            self.train_labels,
            batch_size=self.work.batch_size,
            steps_per_epoch=steps + 1,
            callbacks=[note],
            verbose=0,
        )
        return (ends[-1] - ends[0]) / steps

    def answer(self, images: int) -> None:
        self.model.evaluate(
            self.test_images[:images],
            self.test_labels[:images],
            batch_size=self.work.eval_batch_size,
            verbose=0,
        )

    def about(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__}


def data(images: int, work: Work, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images, float32 in 0–1, and their labels."""
    pixels, labels = drawn(images, work, seed)
    return pixels.astype(np.float32) / 255, labels


if __name__ == "__main__":
    run(KerasFit)
