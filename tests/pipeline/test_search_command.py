"""Search by real dvc: stop it, continue, lose the records, prune."""

import json
import shutil
import signal
from typing import Any

import pytest
from workspace import Workspace

from mnist_lstm.tracking.store import open_store

SPACE = "train.learning_rate: {low: 0.001, high: 0.02, log: true}\nmodel.hidden_size: [16, 24]\n"
SHORT = ("-S", "train.steps=10", "-S", "train.eval_every=5")


def answer(workspace: Workspace, *arguments: str) -> Any:
    printed = workspace.command("search", *arguments, *SHORT, "--json")
    return json.loads(printed[printed.index("\n{\n") :])


def test_a_search_goes_on_after_a_stop_and_after_the_loss_of_its_records(
    workspace: Workspace,
) -> None:
    (workspace.folder / "recipes" / "search.yaml").write_text(SPACE)
    before = workspace.git("status", "--short")
    with workspace.start_warm("mnist-lstm", "search", "3", *SHORT) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("mnist-lstm search: trial 0: "):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.wait() == 130
    assert "mnist-lstm search: stopped; the same command continues from there" in rest
    found = answer(workspace, "2", "--pruner", "median")
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    experiments = workspace.experiments()
    assert len(experiments) == 2
    records = workspace.folder / "searches" / "search"
    assert {path.name for path in records.iterdir()} == {"trial-0.json", "trial-1.json"}
    shutil.rmtree(records)
    assert answer(workspace, "2") == found
    assert workspace.experiments() == experiments

    printed = workspace.command("search", "2", *SHORT)
    best = min(found["trials"], key=lambda trial: trial["loss"])
    apply = f"dvc exp apply {best['experiment']}"
    assert f"`{apply}` brings its parameters and its results here" in printed
    assert (records / "search.png").is_file()
    assert max(map(len, printed.splitlines())) <= 200
    assert workspace.git("status", "--short").replace("?? searches/\n", "") == before
    before = workspace.groups()
    (parent,) = before.values()
    assert list(before) == ["trials of search"]
    assert parent["children"] == {trial["experiment"] for trial in found["trials"]}
    assert [value for _, value, _ in parent["metrics"]["best_validation_loss"]] == pytest.approx(
        [found["trials"][0]["loss"], best["loss"]]
    )
    assert parent["files"] == {"trials.csv", "search.png"}
    copy = workspace.without_store(workspace.folder.with_name("copy"))
    assert "trials of search: it has no parent run: fixed" in copy.command("sync")
    assert copy.groups() == before
    assert "agrees with all" in copy.command("verify")

    workspace.dvc(*apply.split()[1:])
    assert workspace.json("results/evaluate/metrics.json")["validation"]["loss"] == best["loss"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_search_that_is_killed_five_times_ends_with_the_same_trials(
    workspace: Workspace, baseline: Workspace, fresh_store: Any, tmp_path: Any
) -> None:
    """Killed with everything that it started: the command, dvc and the training."""
    (workspace.folder / "recipes" / "search.yaml").write_text(SPACE)
    other = workspace.copy(tmp_path / "other")
    longer = ("-S", "train.steps=60", "-S", "train.eval_every=5", "-S", "train.checkpoint_every=1")
    command = ("search", "24", *longer)
    for number in range(5):
        with workspace.start_warm("mnist-lstm", *command) as process:
            assert process.stdout
            for seen, _ in enumerate(process.stdout):
                if seen == number:
                    process.kill()
                    break
    printed = workspace.command(*command, "--json")
    expected = other.command(*command, "--json")
    found, uninterrupted = (json.loads(text[text.index("\n{\n") :]) for text in (printed, expected))
    assert found == uninterrupted
    assert len(found["trials"]) == 24
    assert len({trial["experiment"] for trial in found["trials"]}) == 24
    assert any(trial["why"] for trial in found["trials"])
    pruned = {trial["experiment"] for trial in found["trials"] if trial["why"]}
    tagged = {
        run.data.tags.get("dvc_experiment") for run in workspace.runs() if "pruned" in run.data.tags
    }
    assert tagged == pruned

    def shown(where: Workspace) -> dict[str, Any]:
        client = open_store(where.folder).client
        return {
            run.data.tags["name"]: [
                (m.step, m.value)
                for m in client.get_metric_history(run.info.run_id, "validation_accuracy")
            ]
            for run in where.runs()
            if "name" in run.data.tags
        }

    groups, curves = workspace.groups(), shown(workspace)
    assert pruned < curves.keys()
    copy = workspace.without_store(tmp_path / "copy")
    copy.command("sync")
    assert copy.groups() == groups
    assert shown(copy) == curves
    assert "agrees with all" in copy.command("verify")
