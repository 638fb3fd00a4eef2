"""List and compare runs after a sweep through DVC's queue."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samples import PROJECT
from scipy.stats import binomtest
from workspace import Workspace, pasted

from mnist_lstm.cli import main
from mnist_lstm.runs.history import History
from mnist_lstm.runs.resolve import NoSuchRun, find

METRICS = "results/evaluate/metrics.json"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def swept(sweep: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(sweep.folder)
    return sweep


def listed(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    assert main(["runs", "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def as_dvc_shows_them(workspace: Workspace) -> dict[str, Any]:
    """The metrics and parameters of HEAD's experiments, from `dvc exp show`, by name."""
    shown = json.loads(workspace.dvc("exp", "show", "--json"))
    (head,) = (row for row in shown if row["rev"] != "workspace")
    return {one["name"]: one["revs"][0]["data"] for one in head["experiments"]}


def test_runs_and_dvc_exp_show_print_the_same_numbers(swept: Workspace, capsys: Capture) -> None:
    runs = listed(capsys)
    theirs = as_dvc_shows_them(swept)
    assert len(theirs) == 5
    assert sorted(name for run in runs for name in run["experiments"]) == sorted(theirs)
    assert len(runs) == 4  # one experiment was in the cache
    for run in runs:
        for name in run["experiments"]:
            metrics = theirs[name]["metrics"][METRICS]["data"]
            params = theirs[name]["params"]["params.yaml"]["data"]
            for split in ("validation", "test"):
                assert run[f"{split}_accuracy"] == metrics[split]["accuracy"]
                assert run[f"{split}_loss"] == metrics[split]["loss"]
            assert run["params"]["model.hidden_size"] == params["model"]["hidden_size"]
            assert run["params"]["train.learning_rate"] == params["train"]["learning_rate"]
            assert run["state"] == "finished"
            assert run["steps"] == 20
    names = {run["name"] for run in runs}
    (first,) = (run for run in runs if not run["differs"])
    assert sorted(first["experiments"]) == sorted([first["name"], "again"])
    assert theirs.keys() == names | {"again"}
    assert [run.data.tags["name"] for run in swept.runs()].count(first["name"]) == 1
    assert {run.data.tags["name"] for run in swept.runs()} == names


def test_the_table_names_shared_results_and_what_to_choose_by(
    swept: Workspace, capsys: Capture
) -> None:
    assert main(["runs", "--best", "2", "--where", "hidden_size=48"]) == 0
    printed = capsys.readouterr().out
    title, _, columns, *rows = printed.splitlines()
    assert title == "The best 2 of 2 runs, by accuracy on validation images:"
    titles = ("run", "validation", "test", "steps", "seconds", "device", "state")
    assert columns.split() == [*titles]
    assert all("finished" in row for row in rows[:4:2])
    assert all(row.startswith("  different: hidden_size=48") for row in rows[1:4:2])
    assert "Choose a run by its accuracy on the" in printed
    best = listed(capsys, "--best", "4")
    accuracies = [run["validation_accuracy"] for run in best]
    assert accuracies == sorted(accuracies, reverse=True)
    (line,) = re.findall(r"(?m)^    (best=.*)$", (PROJECT / "docs" / "runs.md").read_text())
    assert pasted(f"{line}; echo $best") == f"{best[0]['training_id']}\n"

    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    (first,) = (run for run in best if not run["differs"])
    assert f"again: the same result as {first['name']}, which was trained once." in said

    assert main(["runs", "--where", "hidden_size=7"]) == 1
    assert capsys.readouterr().err == "mnist-lstm runs: none of 4 runs has hidden_size=7\n"


def test_runs_are_compared_by_their_answers(
    swept: Workspace, capsys: Capture, tmp_path: Path
) -> None:
    arguments = ("--where", "hidden_size=48", "--sort", "learning_rate")
    first, second = (run["name"] for run in listed(capsys, *arguments))
    out = tmp_path / "curves.png"
    assert main(["compare", first, second[:-1], "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differing"] == ["train.learning_rate"]
    assert out.read_bytes().startswith(b"\x89PNG")
    (pair,) = told["against_first"]
    history = History(swept.folder)
    rights = []
    for name in (first, second):
        rows = history.rows(find(history, name).evaluations[-1], "predictions.csv")
        rights.append([row["actual"] == row["predicted"] for row in rows if row["split"] == "test"])
    only_first = sum(one and not other for one, other in zip(*rights, strict=True))
    only_second = sum(other and not one for one, other in zip(*rights, strict=True))
    assert pair["images"] == 360
    assert (pair["only_first"], pair["only_second"]) == (only_first, only_second)
    expected = binomtest(only_first, only_first + only_second).pvalue
    assert pair["p"] == pytest.approx(expected)
    difference = told["runs"][1]["test_accuracy"] - told["runs"][0]["test_accuracy"]
    assert difference == pytest.approx((only_second - only_first) / 360)

    assert main(["compare", first, second, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "train.learning_rate  0.005" in said
    alone = f"{only_second} are correct only here, and {only_first} only in {first}; p = "
    assert f"{second}: of 360 images, {alone}" in said
    assert f"curves: {os.path.relpath(out)}\nNext: `mnist-lstm promote RUN`" in said


def test_an_experiment_that_shares_its_result_is_the_same_run(
    swept: Workspace, capsys: Capture
) -> None:
    (first,) = (run for run in listed(capsys) if not run["differs"])
    assert main(["compare", first["name"], "again"]) == 2
    assert f"are the same run, {first['name']}" in capsys.readouterr().err


def test_neither_torch_nor_mlflow_is_imported(sweep: Workspace, tmp_path: Path) -> None:
    names = [result.name for result in History(sweep.folder).results]
    commands = [
        ["runs"],
        ["compare", *names, "--out", str(tmp_path / "curves.png")],
        ["report", "--out", str(tmp_path / "report.html")],
    ]
    code = (
        "import sys; from mnist_lstm.cli import main\n"
        f"for command in {commands!r}:\n"
        "    assert main(command) == 0\n"
        "    print('imported:', command[0], sorted({'torch', 'mlflow'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=sweep.folder, check=True, capture_output=True, text=True
    ).stdout
    imported = [f"imported: {name} []" for name in ("runs", "compare", "report")]
    assert re.findall(r"(?m)^imported: .*", printed) == imported


def test_a_store_that_has_everything_is_looked_at_without_torch(sweep: Workspace) -> None:
    code = (
        "import sys; from mnist_lstm.cli import main\n"
        "assert main([sys.argv[1]]) == 0; print('torch' in sys.modules)"
    )
    for command in ("sync", "verify"):
        printed = subprocess.run(
            [sys.executable, "-c", code, command],
            cwd=sweep.folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert printed.endswith("\nFalse\n"), command


def test_a_closed_pipe_is_not_an_error(swept: Workspace) -> None:
    line = "{ { mnist-lstm runs --json; echo $? >&2; } | true; } 2>&1"
    assert pasted(line) == "141\n"


def test_runs_of_another_machine_are_listed_and_compared_by_their_tables_in_git(
    sweep: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    clone = sweep.clone(tmp_path / "clone")
    clone.git("fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*")  # as `dvc exp pull` does
    monkeypatch.chdir(sweep.folder)
    theirs = listed(capsys)
    monkeypatch.chdir(clone.folder)
    runs = listed(capsys)
    assert [run["state"] for run in runs] == ["tables only"] * 4
    for key in ("experiments", "differs", "test_accuracy", "validation_loss", "steps"):
        assert sorted(str(run[key]) for run in runs) == sorted(str(run[key]) for run in theirs)
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out  # HEAD records no run, so that there is nothing else to list
    assert printed.count("tables only") == 4
    assert "more in git's history" not in printed
    first, second = [run["experiments"][0] for run in runs if run["differs"]][:2]
    assert main(["compare", first, second, "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["against_first"]
    assert pair["images"] == 360
    with pytest.raises(NoSuchRun, match=f"{first} is recorded, but its results are not here"):
        find(History(clone.folder), first)
