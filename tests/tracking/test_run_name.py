"""The name of a run in MLflow."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import BEGUN
from tracked import leave_results

from mnist_lstm.pipeline.params import with_values
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.run_name import LONGEST, run_name
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun
from mnist_lstm.tracking.view import View


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def commit(root: Path) -> str:
    """A commit of the recipe of BEGUN, in the project's folder."""
    git(root, "init", "--quiet")
    (root / "params.yaml").write_text(yaml.safe_dump(dict(BEGUN.params)))
    git(root, "add", "params.yaml")
    git(root, "commit", "--quiet", "--message", "the recipe")
    return git(root, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "drawn"),
        (
            {"model.hidden_size": 128, "train.learning_rate": 0.002},
            "hidden_size=128, learning_rate=0.002",
        ),
        ({"seed": 1}, "seed=1"),
        ({"model.new": None}, "new=null"),
    ],
)
def test_it_says_what_differs_from_the_committed_recipe(
    root: Path, commit: str, changes: dict[str, Any], name: str
) -> None:
    about = replace(BEGUN, commit=commit, params=with_values(BEGUN.params, changes))
    assert run_name(root, about) == name


def test_a_long_one_says_how_many_it_leaves_out(root: Path, commit: str) -> None:
    changes = {f"train.parameter_{number}": number for number in range(9)}
    about = replace(BEGUN, commit=commit, params=with_values(BEGUN.params, changes))
    name = run_name(root, about)
    assert name == "drawn: parameter_0=0, parameter_1=1 and 7 more"
    assert len(name) <= LONGEST


def test_without_the_commit_it_is_the_name_in_the_record(root: Path, commit: str) -> None:
    other = replace(BEGUN, params={"seed": 1})
    for unknown in (None, "c" * 40):
        assert run_name(root, replace(other, commit=unknown)) == "drawn"
    assert run_name(root / "mlruns-are-not-here-yet", replace(other, commit=commit)) == "drawn"


def test_a_run_that_an_earlier_version_named_gets_its_new_name(
    store: Store, root: Path, commit: str
) -> None:
    changed = with_values(BEGUN.params, {"train.learning_rate": 0.002})
    about = replace(BEGUN, commit=commit, params=changed)
    run = TrackedRun(store, about)
    store.client.update_run(run.id, name="drawn")
    view = View.read(leave_results(root / "results", about) / "train")
    assert "it is not called 'learning_rate=0.002'" in project(store, view)
    (found,) = runs(store)
    assert (found.info.run_name, found.data.tags["name"]) == ("learning_rate=0.002", "drawn")
    (model,) = store.client.search_logged_models([store.experiment_id])
    assert model.name == "learning_rate=0\u00b7002"  # MLflow refuses a point there
    assert project(store, view) == []
    store.client.update_run(run.id, name="the good one")
    assert project(store, view) == []


def test_a_project_may_be_in_a_folder_of_its_repository(root: Path) -> None:
    """The recipe is that of the project, not one in the folder above."""
    git(root, "init", "--quiet")
    project = root / "project"
    project.mkdir()
    other = with_values(BEGUN.params, {"model.hidden_size": 9})
    for folder, recipe in ((root, other), (project, BEGUN.params)):
        (folder / "params.yaml").write_text(yaml.safe_dump(dict(recipe)))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "two recipes")
    changed = with_values(BEGUN.params, {"seed": 1})
    about = replace(BEGUN, commit=git(root, "rev-parse", "HEAD"), params=changed)
    assert run_name(project, about) == "seed=1"
