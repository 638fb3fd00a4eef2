"""Which stages run again after a change, and what a mistake leaves as it was."""

import pytest
from workspace import Workspace, stages_run


def test_a_change_reruns_what_depends_on_it_and_back_again_nothing(workspace: Workspace) -> None:
    """The README's tour changes a parameter of train: test_tour.py."""
    before = workspace.results()
    assert stages_run(workspace.dvc("repro")) == []
    for key, value, was, last, stages in (
        ("evaluate.shifts", 1, 0, "evaluate", ["evaluate"]),
        ("preprocess.split_seed", 3, "null", "train", ["preprocess", "train"]),
    ):
        workspace.set(key, value)
        printed = workspace.dvc("repro", last)
        assert stages_run(printed) == stages, key
        if key == "evaluate.shifts":
            found = workspace.json("results/evaluate/metrics.json")["test"]["shifted_accuracy"]
            assert f"accuracy of the mean answer to shifted images: {found:.2%}" in printed
        workspace.set(key, was)
        assert stages_run(workspace.dvc("repro")) == [], key
        assert workspace.results() == before, key


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train.steps", 0, "train: params.yaml: train.steps must be at least 1, is 0"),
        ("train.device", "cuda:99", "train: train.device is cuda:99, but "),
        ("fetch.dataset", "mnis", "fetch: params.yaml: fetch.dataset must be one of mnist, "),
    ],
)
def test_a_mistake_leaves_results_as_they_were(
    workspace: Workspace, key: str, value: object, line: str
) -> None:
    before, data = workspace.results(), sorted((workspace.folder / "data").rglob("*"))
    workspace.set(key, value)
    assert line in workspace.refused("repro")
    assert workspace.results() == before
    assert sorted((workspace.folder / "data").rglob("*")) == data


def test_a_mistake_on_a_fresh_clone_leaves_the_committed_results(clone: Workspace) -> None:
    before = clone.results()
    clone.set("train.device", "cuda:99")
    assert "train: train.device is cuda:99" in clone.refused("repro")
    assert clone.results() == before
    assert clone.git("status", "--porcelain") == " M params.yaml\n"


def test_params_edited_while_training_never_reach_the_cache(workspace: Workspace) -> None:
    workspace.set("train.steps", 200)
    printed = ""
    with workspace.start_warm("dvc", "repro", "train") as training:
        assert training.stdout
        for line in training.stdout:
            printed += line
            if " steps of 32 of " in line:  # before the first of them
                workspace.set("model.dropout", 0.25)
    assert training.returncode != 0
    assert "train: changed while the stage ran: params.yaml: model" in printed
    assert "Traceback" not in printed
    assert workspace.lock()["train"]["params"]["params.yaml"]["model"]["dropout"] == 0.5
    assert workspace.lock()["train"]["params"]["params.yaml"]["train"]["steps"] == 20

    other = workspace.dvc("repro", "train")  # at 0.25: nothing of it may come out of the cache
    assert stages_run(other) == ["train"]
    assert "Iter0, step 10," in other
    honest = (workspace.folder / "results" / "train" / "model.safetensors").read_bytes()

    workspace.set("model.dropout", 0.5)  # what was trained is not lost
    again = workspace.dvc("repro", "train")
    assert stages_run(again) == ["train"]
    assert "continues from step 200 of 200" in again
    assert "Iter" not in again
    assert (workspace.folder / "results" / "train" / "model.safetensors").read_bytes() != honest
    assert len(workspace.runs()) == 2  # a training each, however often it was started
    assert {run.info.status for run in workspace.runs()} == {"FINISHED"}


def test_malformed_files_are_named_and_results_stay(workspace: Workspace) -> None:
    before = workspace.results()
    raw = workspace.folder / "data" / "raw" / "t10k-labels-idx1-ubyte.gz"
    content = raw.read_bytes()
    raw.unlink()
    raw.write_bytes(content[:-10])
    printed = workspace.refused("repro", "--single-item", "preprocess")
    assert "preprocess: data/raw/t10k-labels-idx1-ubyte.gz: " in printed
    assert workspace.results() == before
