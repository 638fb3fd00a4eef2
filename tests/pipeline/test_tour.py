"""Run the commands of the README's tour; what they print is short, and names the next command."""

import json
import re
import shlex

from samples import PROJECT
from workspace import Workspace, stages_run

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
        assert {program for program, *_ in PARTS[part]} == {"dvc"}
        return "\n".join(workspace.dvc(*arguments) for _, *arguments in PARTS[part])

    before, committed = workspace.results(), workspace.json(METRICS)
    looked = tour("Look.")
    assert re.findall(r"\| (\w+) \|", looked) == ["fetch", "preprocess", "train", "evaluate"]
    assert f"{committed['test']['loss']:.5f}" in looked
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
    table = tried[tried.index(" Experiment ") :]
    assert max(map(len, table.splitlines())) <= 130 + len(name)
    assert "Warning" not in looked + compared + tried
