"""Trainings that are long enough to be disturbed, and an undisturbed one to compare with."""

import shutil
import subprocess
from pathlib import Path

from workspace import Workspace

STEPS = 400  # a second or two of training
EVAL_EVERY = 50

TRAIN = ("python", "src/train.py", "data/sequences", "results/train")


def prepare(workspace: Workspace, steps: int = STEPS, *, keep_best: bool = False) -> Workspace:
    """Set the recipe of these trainings."""
    values = {"steps": steps, "eval_every": EVAL_EVERY, "checkpoint_every": 10}
    for key, value in values.items():
        workspace.set(f"train.{key}", value)
    workspace.set("train.keep_best", str(keep_best).lower())
    return workspace


def train_warm(workspace: Workspace, **environment: str) -> "subprocess.Popen[str]":
    """Start the stage without dvc, in a process that has imported everything already."""
    return workspace.start_warm(*TRAIN, **environment)


def trainer_of(workspace: Workspace) -> int:
    """The id of the process that trains in a workspace, read from its lock."""
    (lock,) = workspace.folder.glob(".checkpoints/*/lock")
    return int(lock.read_text().split()[1])


def uninterrupted(baseline: Workspace, folder: Path, steps: int = STEPS) -> Workspace:
    """A workspace in which this training ran from beginning to end, and kept its best model."""
    workspace = prepare(baseline.clone(folder), steps, keep_best=True)
    shutil.copytree(baseline.folder / "data", folder / "data", dirs_exist_ok=True)
    printed, _ = train_warm(workspace).communicate()
    assert (workspace.folder / "results" / "train" / "model.safetensors").is_file(), printed
    return workspace
