"""A new user's hour: the README's tour, a sweep, and the commands that choose and use a run."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image
from samples import PROJECT
from workspace import Workspace, stages_run

from mnist_lstm.cli import main
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.tracking.store import open_store

METRICS = "results/evaluate/metrics.json"
TOUR = re.findall(r"(?s)\n## A tour\n(.*?)\n## ", (PROJECT / "README.md").read_text())[0]
# the commands of each part, by the words at its beginning
PARTS = {
    title: [shlex.split(line, comments=True) for line in re.findall(r"(?m)^    (.+)", text)]
    for title, text in re.findall(r"(?s)(?:^|\n)\*\*(.+?)\*\*(.*?)(?=\n\*\*|$)", TOUR)
}
LONGEST, WIDEST = 40, 80  # lines and columns of what one command prints, to be read at a glance


def assert_short(printed: str) -> None:
    """What our code prints is short; DVC's commands and hints are as long as they are."""
    lines = [line for line in printed.splitlines() if line and line[0] not in ">\t"]
    assert len(lines) <= LONGEST, printed
    assert max(map(len, lines)) <= WIDEST, printed


def test_the_tour_of_the_readme_works(workspace: Workspace) -> None:
    def tour(part: str) -> str:
        printed = []
        for program, *arguments in PARTS[part]:
            match program:
                case "dvc":
                    printed.append(workspace.dvc(*arguments))
                case "mnist-lstm":
                    printed.append(workspace.command(*arguments))
                case "cat":
                    printed.append((workspace.folder / arguments[0]).read_text())
                case _:
                    raise AssertionError(program)
        return "\n".join(printed)

    before, committed = workspace.results(), workspace.json(METRICS)
    looked = tour("Look.")
    assert re.findall(r"\| (\w+) \|", looked) == ["fetch", "preprocess", "train", "evaluate"]
    assert f'"loss": {committed["test"]["loss"]}' in looked
    page = workspace.folder / "dvc_plots" / "index.html"
    assert page.is_file()

    ((key, value),) = re.findall(r"say `(\w+): (\S+)`", TOUR)
    was = re.findall(rf"{key}: (\S+)", (workspace.folder / "params.yaml").read_text())[0]
    assert was != value
    workspace.set(f"train.{key}", value)
    changed = tour("Change")
    assert stages_run(changed) == ["train", "evaluate"]
    assert_short(changed)
    assert (
        "\nsee the run in MLflow: `make ui`\ncompare: `dvc metrics diff`; to train again" in changed
    )

    page.unlink()
    compared = tour("Compare")
    assert re.search(rf"params.yaml +train.{key} +{was} +{value}\n", compared)
    assert re.search(r"metrics.json +test.accuracy +0\.", compared)
    accuracy = json.loads(workspace.dvc("metrics", "diff", "--json"))[METRICS]["test.accuracy"]
    assert accuracy["old"] == committed["test"]["accuracy"]
    assert accuracy["new"] == workspace.json(METRICS)["test"]["accuracy"]
    assert accuracy["diff"] == accuracy["new"] - accuracy["old"] != 0
    assert "HEAD" in page.read_text()

    workspace.set(f"train.{key}", was)
    assert stages_run(tour("Go back")) == []
    assert workspace.results() == before

    tried = tour("Try")
    assert stages_run(tried) == ["train", "evaluate"]
    (name,) = re.findall(r"(?m)^.*\[(\w+-\w+)\] .* 0\.3 *$", tried)  # the last is its dropout
    assert workspace.results() == before
    assert workspace.git("status", "--porcelain") == ""
    # the table fits into a wide terminal; DVC decides how many digits of a loss it prints
    table, _, runs = tried[tried.index(" Experiment ") :].partition("\nrun ")
    assert name in runs
    assert max(map(len, table.splitlines())) <= 130 + len(name)
    assert "Warning" not in looked + compared + tried


def test_after_a_sweep_each_command_is_short_and_names_the_next(
    sweep: Workspace,
    baseline: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a terminal of 80 columns, from `dvc repro` in a clone to an answer about a picture."""
    first = (baseline.folder / "printed.txt").read_text()
    assert stages_run(first) == ["fetch", "preprocess", "train", "evaluate"]
    assert_short(first)
    assert "`make ui`" in first
    assert "`dvc metrics diff`" in first

    here = sweep.copy(tmp_path / "here")
    open_store(here.folder)  # which says once that the project was moved
    monkeypatch.chdir(here.folder)
    monkeypatch.setenv("COLUMNS", str(WIDEST))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    def told(*arguments: str) -> str:
        assert main([*arguments]) == 0
        printed = capsys.readouterr()
        text = f"{printed.out}\n{printed.err}"
        assert_short(text)
        return text

    listed = told("runs")
    assert listed.count(" finished") == 4
    assert "\nNext: `mnist-lstm compare RUN RUN`, or `mnist-lstm promote RUN`.\n" in listed
    one, two, *_ = re.findall(r"(?m)^(\S+) .* finished$", told("runs", "--best", "4"))
    assert "\nNext: `mnist-lstm promote RUN`, or change params.yaml" in told("compare", one, two)
    promoted = told("promote", one)
    assert promoted.startswith(f"{one} is the champion now, version 1 of row-lstm\nvalidation ")
    assert "\nNext: `mnist-lstm predict PICTURE`, or `make serve`;" in promoted
    image = Sequences.load(here.folder / "data" / "sequences" / "test.safetensors").pixels[0]
    Image.fromarray(image.numpy()).save("digit.png")
    answered = told("predict", "digit.png")
    assert re.match(r"digit.png  \d +\d+\.\d\d%\n", answered)
    assert "version 1" in answered
    assert "next: --explain shows" in answered
