"""Runs as rows: filters, orders and the best runs. tests/pipeline tests real results."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from samples import REFERENCE_RECIPE
from test_history import Project

from mnist_lstm import UserError
from mnist_lstm.cli import main
from mnist_lstm.pipeline.params import assignments, flatten, short_name
from mnist_lstm.pipeline.result_files import write_json
from mnist_lstm.runs.history import History
from mnist_lstm.runs.listing import AWAY, SECTIONS, Run, at_hand, best, caution, matching, ordered
from mnist_lstm.runs.listing import runs as rows

PARAMS = {"seed": 0, "train.learning_rate": 0.001, "train.device": "auto", "train.steps": 100}
ONE = Run(
    name="one",
    training_id="1" * 32,
    experiments=["one"],
    commits=[],
    dataset="digits",
    params=PARAMS,
    differs={},
    validation_accuracy=0.9,
    validation_loss=0.5,
    test_accuracy=0.99,
    test_loss=0.1,
    steps=100,
    seconds=3.0,
    device="cpu AVX2",
    started="2026-01-02",
    state="finished",
)
TWO = replace(
    ONE,
    name="two",
    params=PARAMS | {"train.learning_rate": 0.002, "preprocess.split_seed": None},
    validation_accuracy=0.95,
    test_accuracy=0.9,
    seconds=2.0,
)
SURER = replace(TWO, name="surer", validation_loss=0.4, seconds=10.0, started=None)
STOPPED = replace(ONE, name="stopped", validation_accuracy=1.0, validation_loss=None, seconds=None)
RUNS = [ONE, TWO, SURER, STOPPED]


def names(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


def test_the_best_are_so_on_validation_images_then_by_loss_and_only_when_evaluated() -> None:
    assert names(best(RUNS, 2)) == ["surer", "two"]
    assert names(best(RUNS, 9)) == ["surer", "two", "one"]


def test_of_the_runs_without_model_those_of_head_and_the_workspace_are_listed(
    tmp_path: Path,
) -> None:
    root, clone = tmp_path / "project", tmp_path / "clone"
    root.mkdir()
    project, commits = Project(root), list[str]()
    begin = project.git("rev-parse", "HEAD")
    for letter in "abc":
        project.train(letter)
        commits.append(project.commit(letter)[:7])
    project.git("clone", "--quiet", str(root), str(clone))
    project.root = clone

    def listed() -> list[str]:
        history = History(clone)
        return names(at_hand(rows(history, []), history))

    oldest, _, newest = commits
    assert listed() == [newest]
    project.git("checkout", oldest, "--", "results", "dvc.lock")
    assert listed() == [oldest, newest]
    project.git("reset", "--quiet", "--soft", begin)  # which has no result
    assert listed() == [oldest]
    project.git("reset", "--quiet", "--hard", begin)
    assert listed() == commits


def test_a_run_whose_model_is_here_is_listed_before_all_others_are() -> None:
    away, history = replace(ONE, state=AWAY), History.__new__(History)
    history.head = history.workspace = None
    assert names(at_hand([away, TWO], history)) == ["two"]


def test_data_sets_are_not_mixed_among_the_best() -> None:
    other = replace(TWO, name="other", dataset="fashion-mnist", validation_accuracy=0.1)
    assert names(best([*RUNS, other], 1)) == ["surer", "other"]


@pytest.mark.parametrize(
    ("dataset", "preprocess", "expected"),
    [
        ("digits", {}, ""),
        (
            "mnist",
            {},
            "Compare accuracies only within one data set: --where dataset=… lists its runs.",
        ),
        (
            "digits",
            {"preprocess.split_seed": 3},
            "Compare accuracies only where split_seed is the same.",
        ),
        (
            "digits",
            {"preprocess.split_seed": 3, "preprocess.validation_size": 50},
            "Compare accuracies only where validation_size and split_seed are the same.",
        ),
    ],
)
def test_accuracies_on_other_images_are_not_to_be_compared(
    dataset: str, preprocess: dict[str, object], expected: str
) -> None:
    other = replace(ONE, dataset=dataset, params=PARAMS | preprocess)
    assert caution([*RUNS, other]) == expected
    assert len(expected) < 80


def test_the_best_of_runs_on_other_images_are_listed_with_that_caution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best one alone has one split only."""
    project, results = Project(tmp_path), tmp_path / "results"
    (tmp_path / "dvc.yaml").touch()
    for letter, size in (("a", 4), ("b", 5)):
        project.train(letter)
        record = json.loads((results / "train" / "run.json").read_text())
        record["params"]["preprocess"] = {"validation_size": size}
        write_json(results / "train" / "run.json", record)
        figures = {"accuracy": size / 10, "loss": 0.5}
        write_json(results / "evaluate" / "metrics.json", {"validation": figures})
        project.lock(letter)
        project.cache()
        project.commit(letter)
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "--best", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The best 1 of 2 runs, by accuracy on validation images:\n")
    assert printed.endswith("Compare accuracies only where validation_size is the same.\n")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("train.learning_rate=0.002", ["two", "surer"]),
        ("learning_rate = 2e-3", ["two", "surer"]),
        ("seed=0", ["one", "two", "surer", "stopped"]),
        ("device=auto", ["one", "two", "surer", "stopped"]),
        ("split_seed=null", ["two", "surer"]),
        ("seed=x", []),
    ],
)
def test_runs_are_filtered_by_a_parameter(condition: str, expected: list[str]) -> None:
    assert names(matching(RUNS, [condition])) == expected


def test_all_conditions_must_hold() -> None:
    assert matching(RUNS, ["learning_rate=0.002", "seed=1"]) == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("started", ["surer", "one", "two", "stopped"]),
        ("name", ["one", "stopped", "surer", "two"]),
        ("validation", ["stopped", "surer", "two", "one"]),
        ("validation_accuracy", ["stopped", "surer", "two", "one"]),
        ("seconds", ["two", "one", "surer", "stopped"]),
        ("learning_rate", ["one", "stopped", "two", "surer"]),
    ],
)
def test_runs_are_sorted(order: str, expected: list[str]) -> None:
    assert names(ordered(RUNS, order)) == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: matching(RUNS, ["seed"]), "--where must be KEY=VALUE, such as"),
        (lambda: matching(RUNS, ["rate=1"]), "--where: no run has the parameter 'rate'; known"),
        (lambda: matching(RUNS, ["train.lernrate=1"]), "did you mean train.learning_rate?"),
        (lambda: ordered(RUNS, "tests"), "--sort: no run has the parameter 'tests'"),
        (lambda: ordered(RUNS, "second"), "did you mean seconds?"),
        (lambda: ordered(RUNS, "test"), "would choose a run by the test images"),
    ],
)
def test_a_wrong_filter_or_order_is_refused(wrong, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        wrong()


def test_differences_are_as_a_filter_takes_them() -> None:
    values = {"train.learning_rate": 0.002, "preprocess.split_seed": None, "train.device": "cpu"}
    said = assignments(values)
    assert said == ["learning_rate=0.002", "split_seed=null", "device=cpu"]
    run = replace(ONE, params=PARAMS | values)
    assert matching([run], said) == [run]


def test_no_two_parameters_need_their_sections() -> None:
    reference = yaml.safe_load(REFERENCE_RECIPE.read_text())
    keys = [short_name(key) for key in flatten({k: reference[k] for k in SECTIONS})]
    assert len(set(keys)) == len(keys) > 10
