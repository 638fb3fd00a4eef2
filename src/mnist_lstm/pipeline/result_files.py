"""Write and read the files in results/: a run's typed record and its tables."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from mnist_lstm import UserError, git
from mnist_lstm.files import write_atomically
from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.typed_json import (
    DAMAGED,
    Bytes,
    Time,
    WrongField,
    as_record,
    checked,
    described,
)

Row = dict[str, Any]

BEST = "best.safetensors"  # of results/train: the best model, or that none is kept
# the columns that a table has had in every version
_ACCURACIES = {"validation_accuracy": float, "test_accuracy": float}
TABLES: Mapping[str, Mapping[str, Any]] = {
    "curve.csv": {"step": int, "train_accuracy": float, **_ACCURACIES, "train_loss": float},
    "timing.csv": {"step": int, "time": Time, "seconds": float},
    "classes.csv": {"class": str},
    "predictions.csv": {"split": str, "actual": int, "predicted": int},
    "reading.csv": {"rows": int, **_ACCURACIES},
}


@dataclass(frozen=True)
class SplitRecord:
    """The file of row sequences of one split, its number of images and its SHA-256."""

    file: str
    images: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The part of results/train/run.json that is known at the start of a training.

    `image` is (rows, pixels). `data` has one entry for each split, `params` has sections of
    params.yaml. `patch` is the difference of the code from `commit`; `commit` is None outside of
    git. `wait_policy` is how idle threads waited, in OpenMP's words: pipeline/company.py. `user`,
    `host` and `folder` say who trained, on which machine, and in which clone of the project.
    """

    training_id: str
    name: str
    started: Time
    fingerprint: str
    dataset: str
    image: tuple[int, int]
    data: Mapping[str, SplitRecord]
    device: str
    precision: str
    threads: int
    commit: str | None
    dirty: bool
    dvc_experiment: str | None
    dvc_baseline: str | None
    versions: Mapping[str, str]
    params: Mapping[str, Any]
    wait_policy: str | None = None  # earlier versions did not record these four
    user: str | None = None
    host: str | None = None
    folder: str | None = None
    patch: Bytes

    def finished(
        self, ended: str, model_sha256: str, best_sha256: str | None = None
    ) -> "FinishedRecord":
        """The record of the same training at its end."""
        start = {entry.name: getattr(self, entry.name) for entry in fields(RunRecord)}
        return FinishedRecord(
            **start, ended=ended, model_sha256=model_sha256, best_sha256=best_sha256
        )

    @property
    def patch_bytes(self) -> bytes:
        """The patch as git wrote it, which may contain bytes that are not UTF-8."""
        return self.patch.encode(errors="surrogateescape")

    def as_json(self) -> dict[str, Any]:
        """The record in JSON's types, with its keys in the order of the fields."""
        return asdict(self) | {"image": list(self.image)}

    @classmethod
    def from_json(cls, value: object, name: str) -> Self:
        """Read the record from parsed JSON. Other keys are ignored.

        Raises UserError with `name` and the first field that is missing or has another type.
        """
        found: Self = as_record(cls, value, name)
        return found


@dataclass(frozen=True, kw_only=True)
class FinishedRecord(RunRecord):
    """All of results/train/run.json, for a training that has finished.

    `best_sha256` is the digest of its best model, with train.keep_best.
    """

    ended: Time
    model_sha256: str
    best_sha256: str | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    """results/evaluate/run.json. `params` has dotted keys, such as `evaluate.batch_size`."""

    training_id: str
    started: Time
    ended: Time
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """The results of a training without its weights.

    `about` is run.json. `rows` are the rows of curve.csv (an Evaluation each), and `timings` those
    of timing.csv (a Timing each). Both have one row for each evaluation.
    """

    about: RunRecord
    rows: list[Row] = field(default_factory=list)
    timings: list[Row] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The step of the last evaluation; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def best_step(self) -> int:
        """The step with the highest validation accuracy, the earliest of equals; 0 before any."""
        best = max(self.rows, key=lambda row: row["validation_accuracy"], default={"step": 0})
        return int(best["step"])

    def as_state(self) -> dict[str, Any]:
        """The training in JSON's types, for a checkpoint."""
        return {"about": self.about.as_json(), "rows": self.rows, "timings": self.timings}

    @staticmethod
    def from_state(state: object, name: str) -> "Training":
        """Read what `as_state` returned. Raises UserError with `name` for anything else."""
        fields = as_record(_State, state, name)
        rows = [_record_row(each, "curve.csv", name) for each in fields.rows]
        timings = [_record_row(each, "timing.csv", name) for each in fields.timings]
        return Training(fields.about, rows, timings)

    def write(self, folder: Path) -> None:
        """Write run.json, curve.csv and timing.csv, each whole or not at all."""
        write_json(folder / "run.json", self.about.as_json())
        write_rows(folder / "curve.csv", self.rows)
        write_rows(folder / "timing.csv", self.timings)


@dataclass(frozen=True)
class Progress:
    """How far a training has come: what its checkpoint has beside the tensors.

    `seconds` is the time spent on it, and `diverged` says why it cannot continue.
    """

    step: int
    seconds: float
    record: Training
    diverged: str | None = None

    def as_state(self) -> dict[str, Any]:
        """The progress in JSON's types, for a checkpoint."""
        state = {"step": self.step, "seconds": self.seconds, "record": self.record.as_state()}
        return state | ({} if self.diverged is None else {"diverged": self.diverged})

    @staticmethod
    def from_state(state: object, name: str) -> "Progress":
        """Read what `as_state` returned. Raises UserError with `name` for anything else."""
        if not isinstance(state, dict):
            raise UserError(f"{name}: must be an object, is {described(state)}; {DAMAGED}")
        found = Progress(
            as_record(int, state.get("step"), name, "step"),
            as_record(float, state.get("seconds"), name, "seconds"),
            Training.from_state(state.get("record"), name),
            as_record(str | None, state.get("diverged"), name, "diverged"),
        )
        rows, timings = found.record.rows, found.record.timings
        are_alike = [row["step"] for row in rows] == [row["step"] for row in timings]
        if not are_alike or not 0 <= found.record.step <= found.step:
            raise UserError(f"{name}: its rows are not those of step {found.step}; {DAMAGED}")
        return found


@dataclass(frozen=True)
class FinishedTraining(Training):
    """A training that has finished."""

    about: FinishedRecord

    @staticmethod
    def read(folder: Path) -> "FinishedTraining":
        """Read what `write` wrote.

        Raises UserError if a file is missing or damaged, or the tables are of two trainings.
        """
        rows, timings = (read_rows(folder / name) for name in ("curve.csv", "timing.csv"))
        if not rows or [row["step"] for row in rows] != [row["step"] for row in timings]:
            raise UserError(f"{folder / 'curve.csv'}: its steps are not those of timing.csv")
        return FinishedTraining(read_run(folder / "run.json"), rows, timings)


@dataclass(frozen=True)
class _State:
    """The fields of `Training.as_state`."""

    about: RunRecord
    rows: Sequence[Any]
    timings: Sequence[Any]


def read_run(path: Path) -> FinishedRecord:
    """Read a run.json of train. Raises UserError if it is missing or damaged."""
    return parse_run(_content(path), str(path))


def parse_run(content: bytes, name: str) -> FinishedRecord:
    """Parse the content of a run.json of train. Raises UserError with `name` as file."""
    return FinishedRecord.from_json(_parse(content, name), name)


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read a run.json of evaluate. Raises UserError as `read_run` does."""
    return parse_evaluation(_content(path), str(path))


def parse_evaluation(content: bytes, name: str) -> EvaluationRecord:
    """Parse the content of a run.json of evaluate. Raises UserError with `name` as file."""
    found: EvaluationRecord = as_record(EvaluationRecord, _parse(content, name), name)
    return found


def row(measured: Any) -> Row:
    """Turn a dataclass into a row of a table, one column for each field."""
    return {entry.name: getattr(measured, entry.name) for entry in fields(measured)}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that people can read: indented, with the keys in their order."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # only bytes of a patch that are not UTF-8 cannot be encoded: write them as JSON's escapes
    text = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError if the file is missing or damaged."""
    return parse_json(_content(path), str(path))


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Parse a file's content as a JSON object. Raises UserError with `name` as file."""
    value = _parse(content, name)
    if not isinstance(value, dict):
        raise UserError(f"{name}: must be a JSON object, is {described(value)}")
    return value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as CSV: numbers with all their digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def parse_metrics(content: bytes, name: str) -> dict[str, dict[str, Any]]:
    """Parse the content of metrics.json: by split, an accuracy and other numbers.

    Raises UserError with `name` as file.
    """
    found: dict[str, dict[str, Any]] = as_record(
        Mapping[str, Mapping[str, Any]], _parse(content, name), name
    )
    for split, metrics in found.items():
        for key, value in flatten({"accuracy": None} | metrics).items():
            as_record(float, value, name, f"{split}.{key}")
    return found


def read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Read metrics.json as `parse_metrics` does. Raises UserError if the file is missing."""
    return parse_metrics(_content(path), str(path))


def read_rows(path: Path) -> list[Row]:
    """Read a table as `parse_rows` does. Raises UserError if the file is missing."""
    return parse_rows(_content(path), str(path), TABLES.get(path.name, {}))


def parse_rows(content: bytes, name: str, columns: Mapping[str, Any]) -> list[Row]:
    """The rows of a CSV file. Raises UserError with `name` if it is not such a table.

    `columns` are the columns that it must have, with their types. A cell of any other column
    becomes int, float, None (if it is empty) or text.
    """
    if git.has_conflict(content):
        raise UserError(f"{name}: {git.CONFLICT}")
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {error}; {DAMAGED}") from None
    found: list[Row] = []
    try:
        for entry in reader:
            if None in entry or None in entry.values():
                raise WrongField("it has another number of fields than the first line")
            found.append({key: _value(text, columns.get(key)) for key, text in entry.items()})
            _check_row(found[-1], columns)
    except (WrongField, csv.Error) as error:
        raise UserError(f"{name}: line {reader.line_num}: {error}; {DAMAGED}") from None
    return found


def _value(text: str, kind: object) -> int | float | str | None:
    """A cell of a table as a number if it is one; a cell of a text's column stays text."""
    for number in () if kind in (str, Time) else (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text or None


def _check_row(entry: Row, columns: Mapping[str, Any]) -> None:
    for column, kind in columns.items():
        if column not in entry:
            raise WrongField(f"{column} is missing")
        checked(entry[column], kind, column)


def _record_row(value: object, table: str, name: str) -> Row:
    """A row of a table in a checkpoint. Raises UserError with `name`."""
    found = as_record(Mapping[str, Any], value, name)
    try:
        _check_row(found, TABLES[table])
    except WrongField as error:
        raise UserError(f"{name}: {error}; {DAMAGED}") from None
    return dict(found)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro` makes it") from None


def _parse(content: bytes, name: str) -> object:
    if git.has_conflict(content):
        raise UserError(f"{name}: {git.CONFLICT}")
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not readable as JSON: {error}") from None
    return value
