"""The trials that a search has ended early, for MLflow. They have no results.

A record of the search says why a trial ended. All that its run shows is in its checkpoint, which is
on the machine that trained it, until space runs out.
"""

from dataclasses import dataclass
from pathlib import Path

from mnist_lstm import UserError
from mnist_lstm.pipeline.result_files import Training, read_json
from mnist_lstm.runs.recipes import project_records
from mnist_lstm.runs.unfinished import unfinished


@dataclass(frozen=True)
class Pruned:
    """A training that was pruned, or diverged: its record and its tables, the reason `why`, and the
    status of its run in MLflow.
    """

    training: Training
    why: str
    status: str


def pruned(root: Path) -> list[Pruned]:
    """The trials of the project in `root` that ended early and whose checkpoints are here."""
    why = reasons(root)
    return [
        Pruned(each.training, why[name], "KILLED" if each.progress.diverged is None else "FAILED")
        for each in unfinished(root / ".checkpoints")
        if not each.at_work and (name := each.record.dvc_experiment) in why
    ]


def reasons(root: Path) -> dict[str | None, str]:
    """Why trials ended early, by experiment. Damaged records are named by runs/groups."""
    found: dict[str | None, str] = {}
    for path in project_records(root, "trial"):
        try:
            record = read_json(path)
        except UserError:
            continue
        name, why = record.get("experiment"), record.get("why")
        if isinstance(name, str) and isinstance(why, str):
            found[name] = why
    return found
