"""A training writes its checkpoints when it should, and makes room for them first."""

import os
from collections.abc import Mapping
from typing import Any

import pytest
from test_errors import Project, project
from test_faults import run
from test_keep_best import prepared

from mnist_lstm.learning.checkpoint import Checkpoint

__all__ = ["prepared", "project"]  # the fixtures


@pytest.mark.parametrize(
    ("evaluated", "every", "is_due", "expected"),
    [
        (10, 1000, True, [0, 10, 20, 30, 40, 50, 60]),
        (1000, 25, True, [0, 25, 50, 60]),
        (10, 25, True, [0, 10, 20, 25, 30, 40, 50, 60]),
        (10, 25, False, [0, 60]),  # the others would cost too much
    ],
)
def test_a_checkpoint_is_written_at_each_evaluation_and_every_so_many_steps(
    prepared: Project, evaluated: int, every: int, is_due: bool, expected: list[int]
) -> None:
    save, saved = Checkpoint.save, list[int]()

    def noted(self: Checkpoint, *parts: Any, **options: Any) -> None:
        (about,) = (part for part in parts if isinstance(part, Mapping))
        saved.append(about["step"])
        save(self, *parts, **options)

    prepared.monkeypatch.setattr(Checkpoint, "save", noted)
    prepared.monkeypatch.setattr(Checkpoint, "is_due", lambda *_: is_due)
    prepared.edit("eval_every: 10", f"eval_every: {evaluated}")
    prepared.edit(r"checkpoint_every: \d+", f"checkpoint_every: {every}")
    run(prepared, "train")
    assert saved == expected


@pytest.mark.parametrize(("bytes_too_many", "stays"), [(-10_000, True), (1, False)])
def test_a_training_removes_the_oldest_beyond_a_gigabyte(
    prepared: Project, bytes_too_many: int, stays: bool
) -> None:
    """The folder of another training holds a file that is all hole: it takes no space."""
    other = prepared.folder / ".checkpoints" / "other"
    other.mkdir(parents=True)
    (other / "checkpoint.safetensors").touch()
    os.truncate(other / "checkpoint.safetensors", 10**9 + bytes_too_many)
    run(prepared, "train")
    assert other.exists() == stays
    assert len(list(other.parent.iterdir())) == 1 + stays
