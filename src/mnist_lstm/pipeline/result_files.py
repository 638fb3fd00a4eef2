"""Write and read the files in results/: a run's typed record and its tables."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically

Row = dict[str, Any]

_Kind = TypeVar("_Kind")

KINDS = {str: "text", int: "a whole number", bool: "true or false"}


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
    git.
    """

    training_id: str
    name: str
    started: str
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
    patch: str

    def finished(self, ended: str, model_sha256: str) -> "FinishedRecord":
        """The record of the same training at its end."""
        start = {entry.name: getattr(self, entry.name) for entry in fields(RunRecord)}
        return FinishedRecord(**start, ended=ended, model_sha256=model_sha256)

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
        return _record(cls, value, name)


@dataclass(frozen=True, kw_only=True)
class FinishedRecord(RunRecord):
    """All of results/train/run.json, for a training that has finished."""

    ended: str
    model_sha256: str


@dataclass(frozen=True)
class EvaluationRecord:
    """results/evaluate/run.json. `params` has dotted keys, such as `evaluate.batch_size`."""

    training_id: str
    started: str
    ended: str
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

    def as_state(self) -> dict[str, Any]:
        """The training in JSON's types, for a checkpoint."""
        return {"about": self.about.as_json(), "rows": self.rows, "timings": self.timings}

    @staticmethod
    def from_state(state: Mapping[str, Any], name: str) -> "Training":
        """Read what `as_state` returned. Raises UserError with `name` for anything else."""
        about = RunRecord.from_json(state.get("about"), name)
        return Training(about, state["rows"], state["timings"])

    def write(self, folder: Path) -> None:
        """Write run.json, curve.csv and timing.csv, each whole or not at all."""
        write_json(folder / "run.json", self.about.as_json())
        write_rows(folder / "curve.csv", self.rows)
        write_rows(folder / "timing.csv", self.timings)


@dataclass(frozen=True)
class FinishedTraining(Training):
    """A training that has finished."""

    about: FinishedRecord

    @staticmethod
    def read(folder: Path) -> "FinishedTraining":
        """Read what `write` wrote. Raises UserError if a file is missing or damaged."""
        return FinishedTraining(
            read_run(folder / "run.json"),
            read_rows(folder / "curve.csv"),
            read_rows(folder / "timing.csv"),
        )


def read_run(path: Path) -> FinishedRecord:
    """Read a run.json of train. Raises UserError if it is missing or damaged."""
    return FinishedRecord.from_json(_json(path), str(path))


def parse_run(content: bytes, name: str) -> FinishedRecord:
    """Parse the content of a run.json of train. Raises UserError with `name` as file."""
    return FinishedRecord.from_json(_parse(content, name), name)


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read a run.json of evaluate. Raises UserError as `read_run` does."""
    return _record(EvaluationRecord, _json(path), str(path))


def parse_evaluation(content: bytes, name: str) -> EvaluationRecord:
    """Parse the content of a run.json of evaluate. Raises UserError with `name` as file."""
    return _record(EvaluationRecord, _parse(content, name), name)


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
    try:
        return parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise _missing(path) from None


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Parse a file's content as a JSON object. Raises UserError with `name` as file."""
    value = _parse(content, name)
    if not isinstance(value, dict):
        raise UserError(f"{name}: must be a JSON object, is {_described(value)}")
    return value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as CSV: numbers with all their digits, None as an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_rows(path: Path) -> list[Row]:
    """Read a table as `parse_rows` does. Raises UserError if the file is missing."""
    try:
        return parse_rows(path.read_bytes())
    except FileNotFoundError:
        raise _missing(path) from None


def parse_rows(content: bytes) -> list[Row]:
    """The rows of a CSV file. A cell becomes int, float, None (if it is empty) or text."""
    file = io.StringIO(content.decode(), newline="")
    return [{name: _value(text) for name, text in entry.items()} for entry in csv.DictReader(file)]


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def _json(path: Path) -> object:
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise _missing(path) from None


def _parse(content: bytes, name: str) -> object:
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not readable as JSON: {error}") from None
    return value


def _record(kind: type[_Kind], value: object, name: str) -> _Kind:
    try:
        found: _Kind = _checked(value, kind, "")
    except _WrongField as error:
        raise UserError(
            f"{name}: {error}; it is damaged, or of another version of this project"
        ) from None
    return found


class _WrongField(Exception):
    """A field is missing or has another type. The message names it."""


def _checked(value: object, kind: Any, key: str) -> Any:
    """Convert a value of parsed JSON to a field's type. Raises _WrongField."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:  # of a type and None
        return None if value is None else _checked(value, arguments[0], key)
    if is_dataclass(kind) or origin is Mapping:
        if not isinstance(value, dict):
            raise _WrongField(f"{key or 'it'} must be an object, is {_described(value)}")
        below = f"{key}." if key else ""
        if origin is Mapping:
            return {
                name: _checked(each, arguments[1], below + name) for name, each in value.items()
            }
        types = get_type_hints(kind)
        if missing := [name for name in types if name not in value]:
            raise _WrongField(f"{below}{missing[0]} is missing")
        return kind(**{name: _checked(value[name], types[name], below + name) for name in types})
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(arguments):
            raise _WrongField(f"{key} must be a list of {len(arguments)}, is {_described(value)}")
        return tuple(map(_checked, value, arguments, [key] * len(value)))
    if type(value) is not kind:
        raise _WrongField(f"{key} must be {KINDS[kind]}, is {_described(value)}")
    return value


def _described(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _missing(path: Path) -> UserError:
    return UserError(f"{path}: no such file; `dvc repro` makes it")
