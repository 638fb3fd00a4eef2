from dataclasses import replace
from typing import Any

import pytest
from samples import FINISHED

from mnist_lstm.commands import reproduce
from mnist_lstm.pipeline.result_files import SplitRecord
from mnist_lstm.runs.reproduction import RunResults, compare, rows

VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "numpy": "2.4.6", "safetensors": "0.8.0"}


def made(accuracy: float = 0.98, **other: Any) -> RunResults:
    record = replace(FINISHED, **{"versions": VERSIONS} | other)
    splits = {"validation": 0.97, "test": accuracy}
    return RunResults(record, {split: {"accuracy": a, "loss": 0.1} for split, a in splits.items()})


def test_the_same_weights_are_identical() -> None:
    outcome = compare(made(), made(training_id="b" * 32, name="another"), 0.0)
    assert (outcome.outcome, outcome.reasons) == ("identical", [])


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"device": "cuda NVIDIA H100"}, "device: cpu then, cuda NVIDIA H100 now"),
        ({"threads": 8}, "threads: 2 then, 8 now"),
        ({"precision": "float64"}, "precision: float32 then, float64 now"),
        ({"versions": VERSIONS | {"torch": "3"}}, "version of torch: 2.15.0 then, 3 now"),
        ({"versions": VERSIONS | {"triton": "3"}}, "version of triton: none then, 3 now"),
    ],
)
def test_other_weights_are_close_within_the_tolerance_and_say_why(
    told: dict[str, Any], reason: str
) -> None:
    now = made(0.976, model_sha256="b" * 64, **told)
    outcome = compare(made(), now, 0.005)
    assert (outcome.outcome, outcome.reasons) == ("close", [reason])
    outcome = compare(made(), now, 0.003)
    assert outcome.outcome == "different"
    assert outcome.reasons == [
        reason,
        "test accuracy differs by 0.40%, more than the tolerance of 0.30%",
    ]


def test_other_data_is_never_close() -> None:
    data = {**FINISHED.data, "train": SplitRecord("data/train", 10, "0" * 64)}
    outcome = compare(made(), made(model_sha256="b" * 64, data=data), 0.5)
    assert outcome.outcome == "different"
    assert outcome.reasons == ["the data differs: the SHA-256 of train is not the run's"]


def test_without_another_cause_the_fingerprint_shows_whether_the_code_differs() -> None:
    (reason,) = compare(made(), made(model_sha256="b" * 64, fingerprint="g"), 0.5).reasons
    assert reason.startswith("the code differs, although commit and patch are those of the run")
    (reason,) = compare(made(), made(model_sha256="b" * 64), 0.5).reasons
    assert reason.startswith("nothing that run.json records differs")


def test_without_an_evaluation_only_the_weights_count() -> None:
    then = RunResults(made().record)
    assert compare(then, made(), 0.0).outcome == "identical"
    outcome = compare(then, made(model_sha256="b" * 64, threads=3), 1.0)
    assert outcome.outcome == "different"
    assert outcome.reasons[-1] == "the run has no evaluation to compare with"


def test_the_table_has_both_runs() -> None:
    table = rows(made(), made(0.976, threads=3))
    assert ["", "then", "now"] in table
    assert ["test accuracy", "98.00%", "97.60%"] in table
    assert ["threads", "2", "3"] in table


@pytest.mark.parametrize("stage", ["train", "summarize"])
def test_the_reason_of_a_failure_is_the_line_of_the_stage(stage: str) -> None:
    reason = f"{stage}: data/raw/classes.txt: no such file"
    failed = f"ERROR: failed to reproduce '{stage}': failed to run: python src/{stage}.py"
    lines = [f"Running stage '{stage}':", f"> python src/{stage}.py", reason, failed]
    assert reproduce._failure(lines) == reason
    assert reproduce._failure([f"{stage}: no stage runs", failed, "Having any troubles?"]) == failed
