"""The files of results/: how they are written, and a training's read back."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically

Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """What a training leaves beside its weights.

    `about` is run.json, what only the moment knew; `rows` are curve.csv, an Evaluation each, and
    `timings` timing.csv, a Timing each: one of both an evaluation.
    """

    about: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    timings: list[Row] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Updates up to the last evaluation."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def write(self, folder: Path) -> None:
        """Write run.json, curve.csv and timing.csv, each whole or not at all."""
        write_json(folder / "run.json", self.about)
        write_rows(folder / "curve.csv", self.rows)
        write_rows(folder / "timing.csv", self.timings)

    @staticmethod
    def read(folder: Path) -> "Training":
        """Read what `write` wrote. Raises UserError where a file is not there or is damaged."""
        return Training(
            read_json(folder / "run.json"),
            read_rows(folder / "curve.csv"),
            read_rows(folder / "timing.csv"),
        )


def row(measured: Any) -> Row:
    """A dataclass, field by field, as a row of a table."""
    return {entry.name: getattr(measured, entry.name) for entry in fields(measured)}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that people can read: indented, keys as they come."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file. Raises UserError where it is not there or is damaged."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    return value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as CSV: numbers with all their digits, None as nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_rows(path: Path) -> list[Row]:
    """Read a table: whole numbers as int, others as float, nothing as None, the rest as text.

    Raises UserError where it is not there.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: _value(text) for name, text in entry.items()}
                for entry in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise _missing(path) from None


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def _missing(path: Path) -> UserError:
    return UserError(f"{path}: no such file; `dvc repro` makes it")
