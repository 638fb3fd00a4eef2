"""The parameters of a run; what runs in a scratch worktree: tests/pipeline/test_reproduce.py."""

from dataclasses import replace

from samples import FINISHED

from mnist_lstm.runs.worktree import params

THERE = {
    "seed": 1,
    "fetch": {"dataset": "mnist", "later": 1},
    "model": {"hidden_size": 256, "gone": 1},
    "train": {"steps": 2000, "device": "auto"},
    "evaluate": {"batch_size": 1000},
    "promote": {"margin": 0.1},
}
RECORD = replace(
    FINISHED,
    device="cpu AVX2",
    params={
        "seed": 0,
        "fetch": {"dataset": "digits"},
        "model": {"hidden_size": 64},
        "train": {"steps": 20, "device": "auto"},
    },
)


def test_the_runs_values_come_before_the_commits() -> None:
    assert params(THERE, RECORD, {"evaluate.batch_size": 7}) == {
        "seed": 0,
        "fetch": {"dataset": "digits", "later": 1},
        "model": {"hidden_size": 64},
        "train": {"steps": 20, "device": "cpu"},
        "evaluate": {"batch_size": 7},
        "promote": {"margin": 0.1},
    }


def test_a_device_is_only_changed_where_auto_may_choose_another() -> None:
    on_gpu = replace(RECORD, device="cuda NVIDIA H100")
    assert params(THERE, on_gpu, {})["train"]["device"] == "auto"


def test_a_commit_without_parameters_gets_the_runs() -> None:
    assert params({}, RECORD, {"evaluate.batch_size": 7})["evaluate"] == {"batch_size": 7}
