"""Studies train what has no row, and keep the rows in order."""

import csv
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from samples import PROJECT, drawn

from benchmarks import studies, trainings
from benchmarks.studies import Study
from mnist_lstm import UserError

COMMON = {
    "fetch.dataset": "digits",
    "preprocess.validation_size": 20,
    "model.hidden_size": 8,
    "train.batch_size": 10,
    "train.steps": 6,
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    about = {"validation_size": 20, "split_seed": None}
    for number, (split, images) in enumerate({"train": 60, "validation": 20, "test": 20}.items()):
        data = replace(drawn(images, number), dataset="digits", preprocess=about)
        data.save(tmp_path / "sequences" / f"{split}.safetensors")
    choices = {"reference": {}, "gru": {"model.cell": "gru", "train.averaging": 0.9}}
    rows, data = tmp_path / "rows.csv", tmp_path / "sequences"
    return Study(rows, "recipes/reference.yaml", COMMON, choices, 2, "choice", sequences=data)


def test_a_training_with_a_row_is_not_repeated(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.run(study, ["gru"], machine={"train.device": "cpu"})
    alone = study.file.read_text()
    trainings.run(study, machine={"train.device": "cpu"})
    with study.file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, seed) for name in ("reference", "gru") for seed in "01"]
    assert [(row["choice"], row["seed"]) for row in rows] == expected
    assert len({row["model_sha256"] for row in rows}) == 4
    assert study.file.read_text().splitlines()[3:] == alone.splitlines()[1:]

    monkeypatch.setattr(trainings, "train", lambda training: pytest.fail("trains again"))
    trainings.run(study, machine={"train.device": "cpu"})


ENDLESS = """
import pickle, sys
from benchmarks import trainings
if __name__ == "__main__":
    study = pickle.load(sys.stdin.buffer)
    trainings.run(study, jobs=2, machine={"train.device": "cpu"})
"""


@pytest.mark.soak
def test_what_trains_beside_others_ends_with_a_parent_that_is_killed(
    study: Study, tmp_path: Path
) -> None:
    endless = replace(study, common={**COMMON, "train.steps": 10**6})
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "src")])
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        assert process.stdin
        process.stdin.write(pickle.dumps(endless))
        process.stdin.close()
        parent = psutil.Process(process.pid)
        while len(works := [p for p in parent.children() if p.cpu_times().user > 5]) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    _, left = psutil.wait_procs(works, timeout=60)
    assert left == []


def test_a_row_measures_the_saved_model(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The averaged weights, as those of the pipeline; its last evaluation has the same accuracy."""
    last = []
    fit = trainings.stage.start_fit

    def recorded(*arguments: object) -> object:
        for evaluation in fit(*arguments):
            last.append(evaluation)
            yield evaluation

    monkeypatch.setattr(trainings.stage, "start_fit", recorded)
    chosen = trainings.params_of(study, "gru", 1, {"train.device": "cpu"})
    row = trainings.train(trainings.Training("gru", chosen, study.sequences))
    *before, end = last
    assert before == [None] * 5
    assert float(row["validation_accuracy"]) == end.validation_accuracy
    assert float(row["test_accuracy"]) == end.test_accuracy
    assert 0.5 < float(row["validation_loss"]) < 1  # two classes: log 2 is 0.69
    assert (row["device"].split()[0], row["precision"]) == ("cpu", "float32")


def test_train_size_takes_the_first_images(study: Study) -> None:
    few = replace(study, common={**COMMON, "preprocess.train_size": 30})
    whole, part = (
        trainings.data_of(trainings.params_of(one, "gru", 0), one.sequences, torch.device("cpu"))
        for one in (study, few)
    )
    assert [len(part[split]) for split in ("train", "validation", "test")] == [30, 20, 20]
    assert part["train"].pixels.equal(whole["train"].pixels[:30])
    assert part["train"].labels.equal(whole["train"].labels[:30])


def test_a_failed_training_does_not_stop_the_others(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = trainings.train

    def failing(training: trainings.Training) -> dict[str, str]:
        if training.choice == "reference" and training.params.seed == 1:
            raise UserError("the loss is nan")
        return train(training)

    monkeypatch.setattr(trainings, "train", failing)
    with pytest.raises(UserError, match="1 of 4 trainings failed; first, reference, seed 1: the l"):
        trainings.run(study, machine={"train.device": "cpu"})
    assert len(study.read()) == 3


def test_mistakes_have_one_line(study: Study) -> None:
    with pytest.raises(UserError, match="tanh: not among reference, gru"):
        trainings.run(study, ["tanh"])
    with pytest.raises(UserError, match="--jobs must be at least 1, is 0"):
        trainings.run(study, jobs=0)
    elsewhere = replace(study, sequences=study.file.parent / "none")
    with pytest.raises(
        UserError, match=r"train\.safetensors: no such file; `dvc repro preprocess`"
    ):
        trainings.run(elsewhere)
    other = replace(study, common={**COMMON, "preprocess.validation_size": 30})
    with pytest.raises(UserError, match="must have digits with a validation_size of 30"):
        trainings.run(other)
    study.file.write_text("without,seed\nnothing,0\n")
    with pytest.raises(UserError, match="its columns must be choice, seed"):
        trainings.run(study)
    study.file.write_text(",".join(studies.COLUMNS) + "\ntanh,0\n")
    with pytest.raises(UserError, match="tanh is no choice any more; delete the file"):
        trainings.run(study)
