"""Parent runs in a real MLflow store."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from tracked import TIMINGS, about

from mnist_lstm.tracking.parents import MEMBERS, Parent, Parents
from mnist_lstm.tracking.store import NOTE, Store
from mnist_lstm.tracking.stored_runs import GROUP, all_runs, artifact, runs
from mnist_lstm.tracking.tracked_run import TrackedRun

PARENT = Parent(
    key="seeds:0",
    name="seeds of quick",
    note="Two seeds.",
    started=1767323040000,
    ended=1767323140000,
    params={"model.hidden_size": "16"},
    tags={"recipe": "quick"},
    points={("seeds", 0): 2, ("accuracy_mean", 10): 1 / 3, ("accuracy_mean", 20): 2 / 3},
    files={"seeds.csv": b"seed\n0\n1\n"},
    members=frozenset({"a" * 32, "b" * 32}),
    children=frozenset({"a" * 32, "b" * 32}),
    pictures={"search.png": lambda: b"PNG"},
)


@pytest.fixture(autouse=True)
def _trainings(store: Store) -> None:
    for letter in "abc":
        TrackedRun(store, about(letter * 32)).finish(
            "FINISHED", about(letter * 32, dvc_experiment=letter), TIMINGS[0]["time"]
        )


def parent_run(store: Store) -> mlflow.entities.Run:
    (run,) = (run for run in all_runs(store) if GROUP in run.data.tags)
    return run


def children(store: Store) -> set[str]:
    above = parent_run(store).info.run_id
    return {
        run.data.tags["training_id"][0]
        for run in runs(store)
        if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == above
    }


def seen(store: Store) -> dict[str, Any]:
    run = parent_run(store)
    keys = sorted(run.data.metrics)
    histories = {key: store.client.get_metric_history(run.info.run_id, key) for key in keys}
    return {
        "points": [(m.key, m.step, m.value, m.timestamp) for k in keys for m in histories[k]],
        "params": run.data.params,
        "tags": run.data.tags,
        "files": {name: artifact(store, run, name) for name in ("seeds.csv", "search.png")},
        "times": (run.info.start_time, run.info.end_time, run.info.status, run.info.run_name),
    }


def test_a_parent_is_made_once_and_has_its_children(store: Store) -> None:
    assert Parents(store).show(PARENT) == ["it has no parent run"]
    first = seen(store)
    assert Parents(store).show(PARENT) == []
    assert seen(store) == first
    assert first["points"] == [
        ("accuracy_mean", 10, 0.3333333333, 1767323140000),
        ("accuracy_mean", 20, 0.6666666667, 1767323140000),
        ("seeds", 0, 2, 1767323140000),
    ]
    assert first["files"] == {"seeds.csv": b"seed\n0\n1\n", "search.png": b"PNG"}
    assert first["times"] == (1767323040000, 1767323140000, "FINISHED", "seeds of quick")
    assert children(store) == {"a", "b"}
    assert len(runs(store)) == 3  # a parent is no training


def test_children_of_pruned_trials_are_known_by_their_experiment(store: Store) -> None:
    Parents(store).show(replace(PARENT, children=frozenset(), experiments=frozenset({"c"})))
    assert children(store) == {"c"}


@pytest.mark.parametrize(
    "change",
    [
        {"points": {("seeds", 0): 3}},
        {"params": {"model.hidden_size": "32"}},
        {"files": {"seeds.csv": b"seed\n0\n1\n2\n"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_parent_that_differs_is_made_again(store: Store, change: dict[str, Any]) -> None:
    Parents(store).show(PARENT)
    first = parent_run(store).info.run_id
    new = replace(PARENT, members=PARENT.members | {"c" * 32}, **change)
    assert Parents(store).show(new) == ["its parent run differs from the results"]
    assert parent_run(store).info.run_id != first
    assert children(store) == {"a", "b"}
    assert Parents(store).show(new) == []


def test_two_clones_with_results_of_other_times_keep_one_parent(store: Store) -> None:
    """Each of them has trained some of the trials."""
    Parents(store).show(PARENT)
    other = replace(PARENT, started=PARENT.started + 1, ended=PARENT.ended - 1)
    assert Parents(store).show(other) == []


def test_names_and_notes_of_people_are_kept(store: Store) -> None:
    Parents(store).show(PARENT)
    run_id = parent_run(store).info.run_id
    store.client.update_run(run_id, name="my favourite")
    store.client.set_tag(run_id, NOTE, "look at seed 1")
    assert Parents(store).show(PARENT) == []
    Parents(store).show(replace(PARENT, points={("seeds", 0): 3}))
    run = parent_run(store)
    assert (run.info.run_name, run.data.tags[NOTE]) == ("my favourite", "look at seed 1")
    Parents(store).show(replace(PARENT, points={("seeds", 0): 4}))
    assert parent_run(store).info.run_name == "my favourite"


def test_what_was_lost_is_added(store: Store) -> None:
    Parents(store).show(PARENT)
    run = parent_run(store)
    (child,) = runs(store, f"tags.training_id = '{'a' * 32}'")
    store.client.delete_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID)
    for name in ("seeds.csv", "search.png"):
        Path(urlparse(run.info.artifact_uri).path, name).unlink()
    lines = [
        "its parent run lacks search.png",
        "its parent run lacks seeds.csv",
        "1 of its runs are not below its parent run",
    ]
    assert Parents(store).lines(PARENT) == lines
    assert Parents(store).show(PARENT) == lines
    assert Parents(store).show(PARENT) == []
    assert parent_run(store).info.run_id == run.info.run_id
    assert children(store) == {"a", "b"}


def test_one_that_was_killed_half_way_is_made_again(store: Store) -> None:
    tags = {GROUP: PARENT.key, MEMBERS: PARENT.ids}
    half = store.client.create_run(store.experiment_id, tags=tags)
    Parents(store).show(PARENT)
    assert parent_run(store).info.run_id != half.info.run_id
    assert Parents(store).show(PARENT) == []


def test_a_second_one_is_deleted(store: Store) -> None:
    Parents(store).show(PARENT)
    first = parent_run(store).info.run_id
    tags = {GROUP: PARENT.key}
    second = store.client.create_run(store.experiment_id, tags=tags, start_time=PARENT.started + 1)
    below = runs(store, f"tags.training_id = '{'c' * 32}'")[0].info.run_id
    store.client.set_tag(below, MLFLOW_PARENT_RUN_ID, second.info.run_id)
    assert Parents(store).show(PARENT)[0] == f"it has a second parent run, {second.info.run_id}"
    assert parent_run(store).info.run_id == first
    tags = store.client.get_run(below).data.tags
    assert tags[MLFLOW_PARENT_RUN_ID] == first


def test_the_parent_of_more_seeds_of_another_machine_stays(store: Store) -> None:
    elsewhere = replace(PARENT, members=frozenset({"x" * 32, "y" * 32}), points={("seeds", 0): 2})
    Parents(store).show(elsewhere)
    there = parent_run(store).info.run_id
    assert Parents(store).show(PARENT) == []
    assert parent_run(store).info.run_id == there
    more = replace(PARENT, members=PARENT.members | {"c" * 32})
    assert Parents(store).show(more) == ["its parent run differs from the results"]
    assert parent_run(store).info.run_id != there
    assert Parents(store).show(elsewhere) == []  # now this one stays
