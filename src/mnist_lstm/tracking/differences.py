"""Compare the MLflow run of a training with the training's files."""

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import LoggedModel, Metric, RunStatus

from mnist_lstm.pipeline.result_files import RunRecord, Training
from mnist_lstm.tracking.logged_model import EARLIER_NAME, has_model, links, logged_model
from mnist_lstm.tracking.overview import Overview
from mnist_lstm.tracking.run_name import run_name
from mnist_lstm.tracking.store import NOTE, Store, is_server
from mnist_lstm.tracking.stored_runs import StoredRun, downloaded, metrics, point_of, runs, sizes
from mnist_lstm.tracking.view import (
    CURVE,
    MeasuredOn,
    Point,
    ShownModel,
    View,
    curve,
    milliseconds,
)

EDITABLE = (NOTE,)  # a tag that people may edit in MLflow
PRUNED = "pruned"  # a tag of a run that a search ended early: why
# a tag of a run on a server: the digests of its artifacts, which then need not be downloaded
ARTIFACTS = "artifacts"
# metrics that earlier versions logged for what is now test_accuracy, when_trained_test_loss and
# others
EARLIER_METRICS = ("trained/", "evaluation/", "test_loss", "validation_loss")


@dataclass(frozen=True)
class Differences:
    """The parts of a view that a run lacks, and those that contradict it."""

    name: str | None
    tags: Mapping[str, str]
    points: Mapping[Point, float]
    links: Sequence[tuple[ShownModel, Mapping[Point, MeasuredOn]]]
    files: Mapping[str, bytes]
    models: Sequence[ShownModel]
    ending: bool
    contradictions: Sequence[str]  # differences that MLflow cannot correct in a run
    artifacts: str | None = None  # the tag ARTIFACTS that it must get, when it has the files

    def lines(self) -> list[str]:
        """A line for each difference."""
        lines = list(self.contradictions)
        if self.points:
            keys = ", ".join(sorted({key.partition("/")[0] for key, _, _ in self.points}))
            lines.append(f"{len(self.points):,} points of {keys} are missing")
        lines += [f"it is not called {self.name!r}"] if self.name else []
        lines += [f"its tag {key} is not {value!r}" for key, value in self.tags.items()]
        lines += [f"its artifact {path} is missing or differs" for path in self.files]
        lines += [f"its {shown.kind} is missing" for shown in self.models]
        for shown, points in self.links:
            if shown not in self.models:
                keys = ", ".join(sorted({key for key, _, _ in points}))
                lines.append(f"its {shown.kind} lacks {keys}")
        lines += ["its state or its end time differs"] * self.ending
        return lines


def differences(
    store: Store, run: StoredRun, view: View, overview: Overview | None = None
) -> Differences:
    """Compare a run with a view of the files. Raises TrackingError.

    On a server, an artifact of the expected size is not downloaded if the run's tag ARTIFACTS has
    its digest: that is what was uploaded.
    """
    with store.errors():
        expected = list(view.points)
        there = overview.metrics(run, expected) if overview else metrics(store, run)
        ended = milliseconds(view.about.ended)
        points = {point_of(metric) for metric in there}
        strangers = {metric.key for metric in there if _is_stranger(metric, view)}
        logged = [
            overview.model(run, shown.sha256)
            if overview
            else logged_model(store, run.info.run_id, shown.sha256)
            for shown in view.models
        ]
        # keep an evaluation later than those of the view: its files may be on another machine
        outdated = max((at for _, _, at in points), default=0) > max(at for *_, at in view.points)
        tags = {
            key: value
            for key, value in view.tags.items()
            if not (key in run.data.tags if key in EDITABLE else run.data.tags.get(key) == value)
            and not (outdated and key.startswith("evaluate."))
        }
        wanted = {
            path: content
            for path, content in view.files.items()
            if not (outdated and path.startswith(("evaluate/", "params.yaml")))
        }
        uploaded = _uploaded(run) if is_server(store.uri) else {}
        digests = uploaded | {path: digest_of(content) for path, content in wanted.items()}
        files = _other_files(store, run, wanted, uploaded)
        return Differences(
            name=new_name(store, run, view.about),
            tags=tags,
            points={point: value for point, value in view.points.items() if point not in points},
            links=[
                (shown, missing)
                for shown, its in zip(view.models, logged, strict=True)
                if (missing := links(its, shown))
            ],
            files=files,
            models=[
                shown
                for shown, its in zip(view.models, logged, strict=True)
                if not has_model(store, run, its)
            ],
            ending=(run.info.status, run.info.end_time)
            != (RunStatus.to_string(RunStatus.FINISHED), ended),
            contradictions=list(_contradictions(run, view, logged[0], strangers)),
            artifacts=json.dumps(digests) if is_server(store.uri) and digests != uploaded else None,
        )


def _contradictions(
    run: StoredRun, view: View, logged: LoggedModel | None, strangers: Iterable[str]
) -> Iterator[str]:
    """A line for each thing that MLflow cannot correct in a run.

    `strangers` are the metrics with points that the files lack.
    """
    params = run.data.params
    for key, value in view.params.items():
        if params.get(key) != value:
            yield f"its parameter {key} is {params.get(key)}, not {value}"
    for key in sorted(run.data.metrics):
        if key.startswith(EARLIER_METRICS):
            yield f"its {key} is from an earlier version of this project"
    if logged and logged.name == EARLIER_NAME:
        yield "its model is from an earlier version of this project"
    for key in sorted(strangers):
        yield f"its {key} has points that its training lacks"


def _is_stranger(metric: Metric, view: View) -> bool:
    """Whether a point of a run contradicts the files: its value differs, or they have no such row.

    A later point at the last step is of an evaluation whose files may be on another machine.
    """
    if (value := view.points.get(point_of(metric))) is not None:
        return not _is_stored_as(value, metric.value)
    is_evaluation = metric.step == view.step and metric.timestamp > milliseconds(view.about.ended)
    return metric.key in CURVE and not is_evaluation


def _is_stored_as(value: float, stored: float) -> bool:
    """Whether MLflow stores a value so: for infinity it has the largest float."""
    if math.isnan(value):
        return math.isnan(stored)
    return stored in (value, max(-sys.float_info.max, min(value, sys.float_info.max)))


def lacks_of_pruned(
    store: Store, training: Training, why: str, overview: Overview | None = None
) -> list[str]:
    """A line for each thing that the run of a training lacks. Raises TrackingError."""
    with store.errors():
        found = runs(store, f"tags.training_id = '{training.about.training_id}'")
        if not found:
            return ["it has no run"]
        expected = curve(training.rows, training.timings)
        there = overview.metrics(found[0], list(expected)) if overview else metrics(store, found[0])
        missing = expected.keys() - {point_of(metric) for metric in there}
        lines = [f"{len(missing):,} of its points are missing"] if missing else []
        if found[0].data.tags.get(PRUNED) != why:
            lines.append("its run does not say why it ended early")
        return lines


def new_name(store: Store, run: StoredRun, about: RunRecord) -> str | None:
    """The name that a run must get; None if it has it, or one that people gave it."""
    name = run_name(store.root, about)
    return name if run.info.run_name == about.name != name else None


def digest_of(content: bytes) -> str:
    """The start of a file's SHA-256, for the tag ARTIFACTS."""
    return hashlib.sha256(content).hexdigest()[:16]


def _uploaded(run: StoredRun) -> dict[str, str]:
    """The digests in the tag ARTIFACTS; none if a person has edited it."""
    try:
        return dict(json.loads(run.data.tags.get(ARTIFACTS, "{}")))
    except (ValueError, TypeError):
        return {}


def _other_files(
    store: Store, run: StoredRun, expected: Mapping[str, bytes], uploaded: Mapping[str, str]
) -> dict[str, bytes]:
    """The expected artifacts that a run lacks, or has with other bytes."""
    known = {path for path, content in expected.items() if uploaded.get(path) == digest_of(content)}
    # one request for a folder: that of the run itself has two files, and both folders of the others
    folders = {str(Path(path).parent) for path in expected}
    if known == expected.keys() and len(folders) > 1:
        folders.discard(".")
    there = sizes(store, run, folders)
    return {
        path: content
        for path, content in expected.items()
        if str(Path(path).parent) in folders
        and (
            there.get(path) != len(content)
            or (path not in known and downloaded(store, run, path) != content)
        )
    }
