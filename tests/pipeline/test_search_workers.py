"""Searches by several workers, with real dvc: of one command, and in two clones on PostgreSQL."""

import json
import shutil
from pathlib import Path
from typing import Any

import postgres
import pytest
from workspace import Workspace

from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs

SPACE = "train.learning_rate: {low: 0.001, high: 0.02, log: true}\nmodel.hidden_size: [16, 24]\n"
SHORT = ("-S", "train.steps=10", "-S", "train.eval_every=5")
WHOLE = (*SHORT, "--pruner", "none")


def answer(printed: str) -> Any:
    return json.loads(printed[printed.index("{\n") :])


def with_space(workspace: Workspace) -> Workspace:
    (workspace.folder / "recipes" / "search.yaml").write_text(SPACE)
    return workspace


def test_two_workers_of_one_command(workspace: Workspace) -> None:
    with_space(workspace)
    command = ("search", "2", "--workers", "2", *SHORT, "--json")
    found = answer(workspace.command(*command))
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    names = {trial["experiment"] for trial in found["trials"]}
    assert {name.rpartition("/")[2] for name in workspace.experiments()} == names
    (parent,) = workspace.groups().values()
    assert parent["children"] == names
    again = answer(workspace.command(*command))
    assert again == found
    assert len(workspace.experiments()) == 2


@pytest.mark.soak
def test_two_clones_share_a_search_and_one_is_killed(
    workspace: Workspace, tmp_path: Path, baseline: Workspace
) -> None:
    """Of one project and one MLflow, as on two machines. The killed one's trial goes on."""
    other = baseline.clone(tmp_path / "other")
    for name in (".dvc/cache", "data", "results"):
        shutil.copytree(baseline.folder / name, other.folder / name, dirs_exist_ok=True)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace.folder / 'mlflow.db'}"}
    with postgres.database("optuna") as url:
        command = ("search", "5", "--storage", url, *WHOLE, "--json")
        processes = [
            with_space(each).start_warm("mnist-lstm", *command, **store)
            for each in (workspace, other)
        ]
        assert processes[1].stdout
        for line in processes[1].stdout:
            if "mnist-lstm search: trial " in line:
                break
        processes[1].kill()
        processes[1].wait()
        processes[1].stdout.close()
        printed, _ = processes[0].communicate()
        assert processes[0].returncode == 0, printed
        found = answer(printed)
        # the killed one goes on, finds that all have ended, and has the same answer
        with other.start_warm("mnist-lstm", *command, **store) as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, printed
        assert [trial["experiment"] for trial in answer(printed)["trials"]] == [
            trial["experiment"] for trial in found["trials"]
        ]
    names = [trial["experiment"] for trial in found["trials"]]
    assert len(names) == len(set(names)) == 5
    trained = [
        {reference.rpartition("/")[2] for reference in each.experiments()}
        for each in (workspace, other)
    ]
    assert trained[0]
    assert trained[1]
    assert trained[0] | trained[1] == set(names)
    shown = [run.data.tags["dvc_experiment"] for run in runs(open_store(workspace.folder))]
    assert sorted(name for name in shown if name in names) == sorted(names)
    (parent,) = workspace.groups().values()
    assert parent["children"] == set(names)

    # the database is lost: it is filled from what the clone has
    with postgres.database("optuna") as url:
        again = answer(workspace.command("search", "5", "--storage", url, *WHOLE, "--json"))
    assert [trial["experiment"] for trial in again["trials"]] == names
