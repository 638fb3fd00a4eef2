"""`mnist-lstm` in a project that has results, but an empty MLflow store."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracked import contents
from workspace import Workspace

from mnist_lstm.cli import COMMANDS, main
from mnist_lstm.commands import say
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(workspace.folder)
    return workspace


def test_verify_finds_disagreements_and_fixes_them(
    here: Workspace, baseline: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = baseline.json("results/train/run.json")["name"]
    assert main(["verify"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: it has no run\n")
    assert "disagreements: 1; `mnist-lstm verify --fix` fixes what can be fixed" in printed
    assert main(["verify", "--fix", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    training_id = baseline.json("results/train/run.json")["training_id"]
    assert found == {
        "name": name,
        "training_id": training_id,
        "what": "it has no run",
        "fixed": True,
        "note": False,
    }
    assert main(["verify"]) == 0
    assert "agrees with all 1 results" in capsys.readouterr().out

    synced, first = open_store(here.folder), open_store(baseline.folder)
    (mine,), (theirs,) = runs(synced), runs(first)
    expected = contents(first, theirs, tmp_path / "first")
    assert contents(synced, mine, tmp_path / "synced") == expected


def test_sync_takes_results_of_other_commits_from_cache_and_git(
    here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workspace has no results, and DVC's run cache is gone: only git has recorded them."""
    for path in (here.folder / "results").rglob("*.*"):
        path.unlink()
    for path in (here.folder / ".dvc" / "cache" / "runs").rglob("*"):
        if path.is_file():
            path.unlink()
    (here.folder / "dvc.lock").unlink()
    assert main(["sync"]) == 0
    assert "runs updated: 1, up to date before: 0\n" in capsys.readouterr().out
    assert [run.info.status for run in here.runs()] == ["FINISHED"]


def test_a_champion_whose_run_is_deleted_becomes_a_new_version(
    here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", here.json("results/train/run.json")["name"]]) == 0
    store = open_store(here.folder)
    for number, command in enumerate((["sync"], ["verify", "--fix"]), start=1):
        (run,) = runs(store)
        store.client.delete_run(run.info.run_id)
        capsys.readouterr()
        assert main(command) == 0
        line = f"version {number} of row-lstm is of a run that was made again"
        assert line in capsys.readouterr().out
        (run,) = runs(store)
        found = store.client.get_model_version_by_alias(registry.MODEL, registry.ALIAS)
        assert (found.run_id, str(found.version)) == (run.info.run_id, str(number + 1))
    assert main(["verify"]) == 0


def test_results_that_are_not_in_the_cache_are_counted(
    clone: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone.folder)
    assert main(["sync"]) == 0
    printed = capsys.readouterr().out
    assert "runs updated: 0, up to date before: 0\n" in printed
    assert "recorded results that are not in DVC's cache here: 2; if a DVC remote" in printed


def test_garbage_collection_leaves_what_verify_and_sync_can_name(
    here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dvc gc` deletes the files of an earlier result, and `mlflow gc` a run that was deleted."""
    assert main(["sync"]) == 0
    (first,) = here.runs()
    here.set("seed", 1)
    here.dvc("repro")
    here.dvc("gc", "--workspace", "--force")
    capsys.readouterr()
    gone = f"{first.data.tags['name']}: no result here has its model\n"
    assert main(["verify"]) == 1
    assert capsys.readouterr().out.startswith(f"{gone}sqlite:")
    assert main(["sync"]) == 0
    printed = capsys.readouterr().out
    assert "runs updated: 0, up to date before: 1\n" in printed
    assert "recorded results that are not in DVC's cache here: " in printed

    store = open_store(here.folder)
    (second,) = (run for run in runs(store) if run.info.run_id != first.info.run_id)
    store.client.delete_run(second.info.run_id)
    arguments = ("gc", "--backend-store-uri", store.uri)
    collect = here.start_warm("mlflow", *arguments, MLFLOW_TRACKING_URI=store.uri)
    said, _ = collect.communicate()
    assert collect.returncode == 0, said
    name = second.data.tags["name"]
    assert main(["verify"]) == 1
    assert capsys.readouterr().out.startswith(f"{name}: it has no run\n{gone}")
    assert main(["sync"]) == 0
    assert f"{name}: it has no run: fixed\n" in capsys.readouterr().out
    assert main(["verify"]) == 1
    assert capsys.readouterr().out.startswith(f"{gone}sqlite:")


def test_a_store_that_cannot_be_reached_is_reported_in_one_line(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command in ("sync", "verify"):
        assert main([command]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"mnist-lstm {command}: MLflow store http://127.0.0.1:9: ")
        assert said.count("\n") == 1


def test_outside_of_a_project_commands_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify"]) == 2
    assert "no dvc.yaml here or above; run this inside the project" in capsys.readouterr().err


def test_help_imports_no_slow_module_and_has_the_exit_codes() -> None:
    code = (
        "import sys; from mnist_lstm.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as end: print(command, end.code, end=' ')\n"
        "    print(sorted({'torch', 'mlflow', 'dvc', 'numpy'} & set(sys.modules)), end='\\0')"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    for command, text in zip(COMMANDS, printed.removesuffix("\0").split("\0"), strict=True):
        assert text.startswith(f"usage: mnist-lstm {command} "), command
        assert "\nExit code: 0 when " in text, command
        assert text.endswith(f"\n{command} 0 []"), text
        assert max(map(len, text.splitlines())) <= 100, command


def test_a_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predcit"]) == 2
    line = "mnist-lstm: there is no command 'predcit'; did you mean predict?\n"
    assert capsys.readouterr().err == line
    assert main(["x"]) == 2
    assert f"the commands: {', '.join(COMMANDS)}" in capsys.readouterr().err


def test_on_a_terminal_a_command_says_what_takes_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("promote", "opening the MLflow store")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say("promote", "opening the MLflow store")
    assert capsys.readouterr().err == "mnist-lstm promote: opening the MLflow store …\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 100])
def test_help_wraps_to_the_terminal(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert columns - 15 < max(map(len, lines)) <= columns


def test_help_has_a_line_for_each_command() -> None:
    printed = help_of_all()
    (column,) = {len(found) for found in re.findall(r"(?m)^  [a-z]+ +(?=[A-Z])", printed)}
    assert re.findall(rf"(?m)^  ([a-z]+) +(?<=^.{{{column}}})[A-Z]", printed) == list(COMMANDS)


@pytest.mark.soak
def test_help_takes_less_than_half_a_second() -> None:
    for _ in range(20):  # other work on the machine only adds: one that it did not disturb
        started = time.monotonic()
        help_of_all()
        took = time.monotonic() - started
        if took < 0.5:
            break
    assert took < 0.5


def help_of_all() -> str:
    program = Path(sys.executable).with_name("mnist-lstm")
    return subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
