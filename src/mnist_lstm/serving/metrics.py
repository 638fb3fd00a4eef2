"""What the server tells Prometheus: requests, refusals, latency, and the drift of its images."""

import math
from collections import deque
from collections.abc import Collection, Iterable
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mnist_lstm.runs.servable import UNSURE, Usual

FORMAT = CONTENT_TYPE_LATEST
RECENT = 1000  # images over which the gauges of recent images are means
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, classes: Iterable[str], usual: Usual) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "mnist_lstm_requests",
            "Requests, by path and status of the answer",
            ["path", "status"],
            registry=own,
        )
        self.refusals = Counter(
            "mnist_lstm_refusals",
            "Requests that were refused, by what was wrong",
            ["path", "kind"],
            registry=own,
        )
        self.seconds = Histogram(
            "mnist_lstm_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ["path"],
            buckets=SECONDS,
            registry=own,
        )
        self.answers = Counter(
            "mnist_lstm_answers", "Images, by the class of the answer", ["class"], registry=own
        )
        self.ink = Summary(
            "mnist_lstm_image_ink", "Mean ink of an image: 0 is blank, 1 is full", registry=own
        )
        self.unsure = Counter(
            "mnist_lstm_unsure", f"Images whose class got less than {UNSURE}", registry=own
        )
        recent = Gauge(
            "mnist_lstm_recent", f"Means over the last {RECENT} images", ["of"], registry=own
        )
        expected = Gauge(
            "mnist_lstm_expected", "The same means over the test images", ["of"], registry=own
        )
        self._recent: dict[str, deque[float]] = {}
        for name, known in (("ink", usual.ink), ("unsure", usual.unsure)):
            self._recent[name] = deque(maxlen=RECENT)
            recent.labels(name).set_function(partial(_mean, self._recent[name]))
            if known is not None:
                expected.labels(name).set(known)
        self._by_class = [self.answers.labels(name) for name in classes]

    def saw(self, images: np.ndarray, probabilities: np.ndarray) -> None:
        """Count images 0–255 (N, T, D) and the answers to them (N, C)."""
        inks = (images.sum(axis=(1, 2), dtype=np.int64) / (255 * images[0].size)).tolist()
        unsure = (probabilities.max(axis=1) < UNSURE).tolist()
        for ink in inks:
            self.ink.observe(ink)
        self._recent["ink"].extend(inks)
        self._recent["unsure"].extend(unsure)
        self.unsure.inc(sum(unsure))
        for answer in probabilities.argmax(axis=1).tolist():
            self._by_class[answer].inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else math.nan
