"""A training that goes wrong says so: one whose loss is no number, one that learns nothing."""

import json
import re

from trainings import train_warm
from workspace import Workspace

from mnist_lstm.tracking.store import open_store

STOPS = re.compile(
    r"(?m)^train: the loss is (nan|inf) at step (\d+), so the training stops; lower "
)


def diverging(workspace: Workspace) -> None:
    """A recipe that learns for two evaluations, and then overflows: each step makes it larger."""
    for key, value in (
        ("optimizer", "sgd"),
        ("learning_rate", 1.0),
        ("weight_decay", 3.0),
        *(("steps", 200), ("eval_every", 20)),
    ):
        workspace.set(f"train.{key}", value)


def test_a_loss_that_is_no_number_ends_the_training_and_a_repetition_at_once(
    workspace: Workspace,
) -> None:
    before = workspace.results()
    diverging(workspace)
    printed = workspace.refused("repro")
    met = STOPS.search(printed)
    assert met, printed
    evaluated = int(met[2]) - 20
    assert evaluated >= 20
    assert workspace.results() == before

    (run,) = workspace.runs()
    assert run.info.status == "FAILED"
    store = open_store(workspace.folder)
    history = store.client.get_metric_history(run.info.run_id, "train_loss")
    assert [metric.step for metric in history] == list(range(20, evaluated + 1, 20))

    again = workspace.refused("repro")
    found = STOPS.search(again)
    assert found
    assert found[0] == met[0]
    assert "Iter" not in again  # it has not trained
    (same,) = workspace.runs()
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FAILED")

    workspace.command("sync")
    assert "agrees with" in workspace.command("verify")
    (shown,) = [
        each
        for each in json.loads(workspace.command("runs", "--json"))
        if each["training_id"] == run.data.tags["training_id"]
    ]
    assert shown["state"] == f"stopped at step {evaluated + 20:,}"

    workspace.set("train.weight_decay", 0.0)
    workspace.set("train.learning_rate", 0.01)
    assert "% of the test images are right, in float32 on the CPU" in workspace.dvc("repro")


def test_a_loss_that_is_no_number_at_the_last_step_does_so_too(workspace: Workspace) -> None:
    diverging(workspace)
    workspace.set("train.eval_every", 200)
    for trains in (True, False):
        printed, _ = train_warm(workspace).communicate()
        assert STOPS.search(printed), printed
        assert "damaged" not in printed
        assert ("200 steps of" in printed) is trains


def test_a_model_that_learns_nothing_is_told(workspace: Workspace) -> None:
    workspace.set("train.learning_rate", 10.0)
    workspace.set("train.steps", 60)
    printed = workspace.dvc("repro", "train")
    first, second = re.findall(
        r"(?m)^\d+\.\d\d % of the test.*$|^the model has learned .*$", printed
    )
    assert re.search(r"in float32 on the CPU \(\w+\), 1 thread$", first)
    assert "lower train.learning_rate or model.dropout, or raise train.steps" in second
