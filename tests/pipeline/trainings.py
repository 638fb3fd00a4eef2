"""Trainings that are long enough to be disturbed, and one that was not."""

import shutil
import subprocess
from pathlib import Path

from workspace import Workspace

STEPS = 1500  # three seconds of training, behind as many of imports


def prepare(workspace: Workspace, steps: int = STEPS) -> Workspace:
    """Set the recipe of these trainings."""
    for key, value in (("steps", steps), ("eval_every", 100), ("checkpoint_every", 10)):
        workspace.set(f"train.{key}", value)
    return workspace


def train(workspace: Workspace, **environment: str) -> "subprocess.Popen[str]":
    """The stage alone, without dvc."""
    paths = ("data/sequences", "results/train")
    return workspace.start("python", "src/train.py", *paths, **environment)


def uninterrupted(baseline: Workspace, folder: Path, steps: int = STEPS) -> Workspace:
    """A workspace in which that training ran from beginning to end."""
    workspace = prepare(baseline.clone(folder), steps)
    shutil.copytree(baseline.folder / "data", folder / "data", dirs_exist_ok=True)
    printed, _ = train(workspace).communicate()
    assert (workspace.folder / "results" / "train" / "model.safetensors").is_file(), printed
    return workspace
