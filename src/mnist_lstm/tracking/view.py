"""Everything that MLflow shows of a training, read from the training's files alone."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mnist_lstm import UserError
from mnist_lstm.pipeline.params import flatten, with_values
from mnist_lstm.pipeline.result_files import (
    BEST,
    EvaluationRecord,
    FinishedRecord,
    FinishedTraining,
    RunRecord,
    read_evaluation,
    read_metrics,
)
from mnist_lstm.pipeline.typed_json import LARGEST
from mnist_lstm.views.model_words import cell, reads

LAST = "model.safetensors"  # of results/train: the model at the last step
CURVE = ("train_accuracy", "validation_accuracy", "test_accuracy", "train_loss")
# MLflow sorts charts by name: with this before its name, a metric without a curve is after those
ONCE = "when_trained_"
SYSTEM = {
    "memory_megabytes": "system/peak_memory_usage_megabytes",
    "processor_percent": "system/process_cpu_utilization_percentage",
    "gpu_memory_megabytes": "system/gpu_0_memory_usage_megabytes",
    "gpu_percent": "system/gpu_0_utilization_percentage",
}
# MLflow shows tags in the order in which a run got them: what people read comes before hashes
FIRST = (
    *("name", "dvc_experiment", "user", "host", "dataset", "device", "precision", "threads"),
    *("image", "dirty"),
)
# fields of run.json that do not become tags: MLflow has own fields for them, or they are artifacts
NOT_TAGS = ("started", "ended", "params", "versions", "patch", "data")

Point = tuple[str, int, int]  # one value of a metric: key, step, time in milliseconds
MeasuredOn = tuple[str, str]  # name and digest of a data set


@dataclass(frozen=True)
class ShownModel:
    """A model that a training kept. `measured` are the points that were measured on its weights.

    `is_best`: the one with the highest validation accuracy, where the last one is another.
    """

    file: str  # its name in the folder of the training's results
    sha256: str
    step: int
    measured: Mapping[Point, MeasuredOn]
    is_best: bool = False

    @property
    def kind(self) -> str:
        """What messages call it."""
        return "best model" if self.is_best else "model"


@dataclass(frozen=True)
class View:
    """All that MLflow shows of a training and its evaluations."""

    about: FinishedRecord
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Mapping[Point, float]
    files: Mapping[str, bytes]  # artifacts, by path
    models: Sequence[ShownModel]  # the last one first

    @property
    def step(self) -> int:
        """The last step of the training."""
        return self.models[0].step

    @staticmethod
    def read(training: Path, evaluations: Sequence[Path] = ()) -> "View":
        """Read the folder of a training's results and the folders of all its evaluations.

        Raises UserError if a file is missing, damaged, or of another training.
        """
        record = FinishedTraining.read(training)
        about = record.about
        points = curve(record.rows, record.timings)
        latest = {name: record.rows[-1][name] for name in CURVE}
        tags, files = tags_of(about), _contents(training, "train")
        if not about.best_sha256:
            files.pop(f"train/{BEST}", None)  # no model
        _check_model(files, training / LAST, about.model_sha256)
        if about.patch:
            files["code.patch"] = about.patch_bytes
        records = [read_evaluation(evaluation / "run.json") for evaluation in evaluations]
        at = max(milliseconds(row["time"]) for row in record.timings)
        at = max(at, milliseconds(about.ended))
        for folder, evaluated in sorted(
            zip(evaluations, records, strict=True), key=lambda pair: pair[1].ended
        ):
            # later than all before it, even if this machine's clock is behind
            at = max(milliseconds(evaluated.ended), at + 1)
            figures = {
                key if key in CURVE else f"{ONCE}{key}": value
                for key, value in flatten(read_metrics(folder / "metrics.json"), "_").items()
            }
            for key, value in figures.items():
                # the training has measured the accuracies at its last step: mostly the same ones
                if value != latest.get(key) or key not in CURVE:
                    points[key, step_of(key, record.step), at] = latest[key] = value
            # the last evaluation overwrites the tags and files of the earlier ones
            tags |= {key: str(value) for key, value in evaluated.params.items()}
            files |= _contents(folder, "evaluate") | {"params.yaml": _params_yaml(about, evaluated)}
        params = {key: str(value) for key, value in flatten(about.params).items()}
        digest, best = about.model_sha256, about.best_sha256
        models = [ShownModel(LAST, digest, record.step, _measured(about, points))]
        if best and best != digest:
            _check_model(files, training / BEST, best)
            step = record.best_step
            its = {point: value for point, value in points.items() if point[1] == step}
            models.append(ShownModel(BEST, best, step, _measured(about, its), True))
        return View(about, params, tags, points, files, models)


def step_of(key: str, last: int) -> int:
    """The step of a metric that the stage evaluate measured, after the `last` step.

    MLflow draws a line if a metric has a step, and a bar if its step is 0. So a metric that has no
    curve gets step 0, and a metric that has a curve is measured again at its last step.
    """
    return last if key in CURVE else 0


def dataset_of(about: RunRecord, split: str) -> MeasuredOn:
    """Name and digest of a split's sequences, as MLflow has them."""
    return f"{about.dataset} {split}", about.data[split].sha256[:32]  # MLflow keeps 36 characters


def curve(
    rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
) -> dict[Point, float]:
    """Rows of curve.csv and of timing.csv as points of MLflow's metrics."""
    points: dict[Point, float] = {}
    for row, timing in zip(rows, timings, strict=True):
        values = {name: row[name] for name in CURVE}
        # a gauge is None where the machine has none, and anything in a damaged table
        gauges = {name: timing.get(name) for name in SYSTEM}
        values |= {
            SYSTEM[name]: value
            for name, value in gauges.items()
            if isinstance(value, int | float) and abs(value) < LARGEST
        }
        at = milliseconds(timing["time"])
        points |= {(name, row["step"], at): value for name, value in values.items()}
    return points


def tags_of(about: RunRecord) -> dict[str, str]:
    """The tags of a run: the fields of its record without NOT_TAGS, and MLflow's own tags."""
    fields = about.as_json().items()
    given = {key: value for key, value in fields if key not in NOT_TAGS and value is not None}
    tags = {key: given.pop(key) for key in FIRST if key in given}
    tags |= {f"version.{package}": number for package, number in about.versions.items()} | given
    tags |= {"mlflow.source.git.commit": about.commit} if about.commit else {}
    tags |= {"mlflow.user": about.user} if about.user else {}
    tags |= {"mlflow.source.name": "src/train.py", "mlflow.note.content": description(about)}
    return {key: str(value) for key, value in tags.items()}


def _params_yaml(about: RunRecord, evaluated: EvaluationRecord) -> bytes:
    """A params.yaml with the parameters of the training and of the evaluation."""
    sections = with_values(about.params, evaluated.params)
    text: str = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
    return text.encode()


def description(about: RunRecord) -> str:
    """A training in a few sentences, which MLflow shows above its run."""
    code = f"commit {about.commit[:10]}" if about.commit else "code outside of git"
    changed = ", with changes that are in code.patch" if about.dirty else ""
    try:
        params, data = about.params, about.data
        model, train = params["model"], params["train"]
        return (
            f"A dropout {cell(model)} ({model['num_layers']} layers of {model['hidden_size']} "
            f"units, dropout {model['dropout']}) on {about.dataset}, {reads(model)}. "
            f"{train['steps']:,} steps of {train['batch_size']} out of {data['train'].images:,} "
            f"images, learning rate {train['learning_rate']}, seed {params['seed']}, on "
            f"{about.device} with {about.threads} threads in {about.precision}. Made by "
            f"{code}{changed}."
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the parameters of {about.name} are no training's: {error!r}") from None


def _check_model(files: Mapping[str, bytes], path: Path, digest: str) -> None:
    """Raises UserError if a model is not among the files, or if its SHA-256 is another one."""
    content = files.get(f"train/{path.name}")
    if content is None:
        raise UserError(f"{path}: no such file; `dvc repro train` makes it")
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path}: not the model whose SHA-256 run.json has")


def _measured(about: FinishedRecord, points: Mapping[Point, float]) -> dict[Point, MeasuredOn]:
    """The last points of each metric of a split, with the split's data set.

    They were measured on the weights at that time; the earlier points of a curve were not.
    """
    last: dict[str, Point] = {}
    for point in sorted(points, key=lambda each: each[1:]):  # a clock may have been set back
        last[point[0]] = point
    splits = {key: key.removeprefix(ONCE).partition("_")[0] for key in last}
    return {
        last[key]: dataset_of(about, split) for key, split in splits.items() if split in about.data
    }


def _contents(folder: Path, name: str) -> dict[str, bytes]:
    """The files in a folder of results, as artifacts; no folders and no hidden files."""
    return {
        f"{name}/{path.name}": path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def milliseconds(time: str) -> int:
    """Convert a time in ISO 8601 to milliseconds since 1970, MLflow's form."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)
