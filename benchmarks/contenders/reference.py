"""The published script's graph, rewritten for TensorFlow 1's interface in compat.v1.

Two BasicLSTMCells with dropout of each output, unrolled by hand. A session runs once for each step,
and once for each accuracy, with all images at once.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # compat.v1's cells are in tf_keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.contender import CLASSES, DROPOUT, LEARNING_RATE, Contender, Work, drawn, run

v1 = tf.compat.v1


class Reference(Contender):
    """The graph and its session."""

    def __init__(self, work: Work) -> None:
        v1.disable_v2_behavior()
        self.batch_size = self.beside = work.batch_size
        self.train_images, self.train_labels = data(work.train_images, work, 0)
        self.test_images, self.test_labels = data(work.test_images, work, 1)
        self.random = np.random.default_rng(0)
        self.left = self.random.permutation(work.train_images)
        self.build(work)
        threads = {
            "intra_op_parallelism_threads": work.threads,
            "inter_op_parallelism_threads": work.threads,
        }
        self.session = v1.Session(config=v1.ConfigProto(**threads))
        self.session.run(v1.global_variables_initializer())

    def build(self, work: Work) -> None:
        """Build the graph: from pixels and labels to the accuracy, and an update by Adam."""
        self.pixels = v1.placeholder(tf.float32, [None, work.rows * work.pixels])
        self.labels = v1.placeholder(tf.float32, [None, CLASSES])
        self.kept = v1.placeholder(tf.float32, [])
        images = tf.reshape(self.pixels, [-1, work.rows, work.pixels])
        cells = [
            v1.nn.rnn_cell.DropoutWrapper(
                v1.nn.rnn_cell.BasicLSTMCell(work.hidden_size, forget_bias=1.0),
                output_keep_prob=self.kept,
            )
            for _ in range(2)
        ]
        stack = v1.nn.rnn_cell.MultiRNNCell(cells)
        state = stack.zero_state(tf.shape(images)[0], tf.float32)
        with v1.variable_scope("rnn"):
            for row in range(work.rows):
                if row:
                    v1.get_variable_scope().reuse_variables()
                output, state = stack(images[:, row], state)
        weights = tf.Variable(v1.truncated_normal([work.hidden_size, CLASSES], stddev=0.1))
        bias = tf.Variable(tf.constant(0.1, shape=[CLASSES]))
        probabilities = tf.nn.softmax(tf.matmul(output, weights) + bias)
        loss = -tf.reduce_mean(self.labels * v1.log(probabilities))
        self.update = v1.train.AdamOptimizer(LEARNING_RATE).minimize(loss)
        right = tf.equal(tf.argmax(probabilities, 1), tf.argmax(self.labels, 1))
        self.accuracy = tf.reduce_mean(tf.cast(right, tf.float32))

    def step(self) -> None:
        if len(self.left) < self.batch_size:
            more = self.random.permutation(len(self.train_images))
            self.left = np.concatenate([self.left, more])
        batch, self.left = np.split(self.left, [self.batch_size])
        self.fed = self.feed(self.train_images[batch], self.train_labels[batch], 1 - DROPOUT)
        self.session.run(self.update, self.fed)

    def answer(self, images: int) -> None:
        self.session.run(self.accuracy, self.fed | {self.kept: 1.0})
        some = self.feed(self.test_images[:images], self.test_labels[:images], 1.0)
        self.session.run(self.accuracy, some)

    def feed(self, images: np.ndarray, labels: np.ndarray, kept: float) -> dict[object, object]:
        return {self.pixels: images, self.labels: labels, self.kept: kept}

    def about(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}


def data(images: int, work: Work, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images in the script's form: float32 in 0–1 (N, T·D), and one-hot labels (N, C)."""
    pixels, labels = drawn(images, work, seed)
    flat = pixels.reshape(images, -1).astype(np.float32) / 255
    return flat, np.eye(CLASSES, dtype=np.float32)[labels]


if __name__ == "__main__":
    run(Reference)
