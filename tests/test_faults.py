"""What machines do to a project: the clock is set back, the disk is full, a folder is read-only."""

import argparse
import errno
import importlib
import json
import runpy
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from samples import BEGUN, write_lock
from sqlalchemy import event
from sqlalchemy.engine import Engine
from test_errors import (
    AUTHOR,
    GLYPH,
    PROJECT,
    STAGES,
    Project,
    evaluated,
    evaluated_for_a_report,
    exported,
    followed,
    grey,
    made,
    on_page,
    ordinary_user,
    predicted,
    project,
    with_champion,
)
from tracked import about, every_version, leave_results
from tracked import evaluated as evaluated_at

from mnist_lstm import cli, commands
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline import stage, timing
from mnist_lstm.pipeline.result_files import (
    FinishedTraining,
    RunRecord,
    read_evaluation,
    write_json,
)
from mnist_lstm.runs import champions
from mnist_lstm.serving import app as serving
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.entrant import Decision
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.stored_runs import runs

__all__ = ["project"]  # the fixture
FULL = "database or disk is full; free some space there"


def run(project: Project, name: str) -> str:
    """Run a stage, which must succeed; returns what it prints."""
    _, script, *paths = shlex.split(STAGES[name]["cmd"])
    project.monkeypatch.setattr(sys, "argv", [script, *paths])
    stage.run(getattr(importlib.import_module(name), name))
    return project.capsys.readouterr().out


def test_a_clock_that_is_set_back_while_a_training_runs(project: Project) -> None:
    """Each time that is asked for is an hour before the last one."""

    class SetBack(datetime):
        asked = 0

        @classmethod
        def now(cls, tz: object = None) -> "SetBack":
            cls.asked += 1
            return cls(2026, 1, 2, 3, tzinfo=UTC) - timedelta(hours=cls.asked)

    project.monkeypatch.setattr(timing, "datetime", SetBack)
    project.monkeypatch.setattr(stage, "code", lambda _: [])  # the project here has no src/
    shutil.copy(project.fresh_store, project.folder)
    project.raw()
    project.sequences()
    (project.folder / "data" / "published_curve.csv").write_bytes(
        (PROJECT / "data" / "published_curve.csv").read_bytes()
    )
    project.edit("steps: 1500", "steps: 40")
    project.edit("eval_every: 100", "eval_every: 10")
    assert "continues" not in run(project, "train")
    first = FinishedTraining.read(project.folder / "results" / "train")
    assert "continues from step 40 of 40, its last checkpoint" in run(project, "train")
    assert "see the run in MLflow" in run(project, "evaluate")
    assert SetBack.asked >= 7

    training = FinishedTraining.read(project.folder / "results" / "train")
    assert (training.rows, training.timings) == (first.rows, first.timings)
    times = [training.about.started, *(row["time"] for row in training.timings)]
    assert times == sorted(times)
    assert training.about.ended == times[-1]
    evaluation = read_evaluation(project.folder / "results" / "evaluate" / "run.json")
    assert evaluation.started <= evaluation.ended
    project.with_history(results=False)
    write_lock(project.folder)
    assert cli.main(["verify"]) == 0
    assert cli.main(["sync"]) == 0
    assert "runs updated: 0, up to date before: 1" in project.capsys.readouterr().out


@contextmanager
def full() -> Iterator[None]:
    """No SQLite database of MLflow's can take anything."""

    def refuse(_: object, __: object, statement: str, *more: object) -> None:
        if statement.split()[0] in ("CREATE", "INSERT", "UPDATE"):
            with closing(sqlite3.connect(":memory:")) as tiny:
                tiny.execute("PRAGMA max_page_count = 1")
                tiny.execute("CREATE TABLE full (x)")

    event.listen(Engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", refuse)


def with_results(folder: Path, record: RunRecord | None = None, accuracy: float = 0.9) -> None:
    """The results of a run that can be promoted."""
    record = record or about()
    data = BEGUN.data | {"validation": BEGUN.data["test"]}
    results = leave_results(folder / "results", replace(record, data=data))
    evaluated_at(results / "evaluate", "2026-01-02T04:00:00+00:00", 10, record.training_id)
    metrics = {split: {"accuracy": accuracy, "loss": 0.1} for split in ("validation", "test")}
    write_json(results / "evaluate" / "metrics.json", metrics)
    write_lock(folder)


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def killed(*_: object) -> None:
    raise Killed


@pytest.fixture
def promotable(project: Project) -> Project:
    shutil.copy(project.fresh_store, project.folder)
    project.with_history(results=False)
    with_results(project.folder)
    return project


def promote_until(project: Project, place: object, function: str) -> None:
    """Promote, and be killed when this function is called."""
    with project.monkeypatch.context() as patch:
        patch.setattr(place, function, killed)
        with pytest.raises(Killed):
            cli.main(["promote", "drawn"])


NEXT = ["promote drawn", "sync", "verify --fix"]


@pytest.mark.parametrize("command", NEXT)
def test_a_promotion_that_is_killed_before_its_line_is_written_gets_it(
    promotable: Project, command: str
) -> None:
    promote_until(promotable, champions, "write")
    assert champions.read(promotable.folder) == []
    promoted = registry.champion(open_store(promotable.folder))
    assert promoted
    assert cli.main(["verify"]) == 1
    assert "its promotion of 20" in promotable.capsys.readouterr().out
    assert cli.main(command.split()) == 0
    (decision,) = champions.read(promotable.folder)
    assert (decision.entrant, decision.note) == (promoted.entrant, promoted.promoted)
    assert cli.main(["verify"]) == 0


@pytest.mark.parametrize("command", NEXT)
def test_a_promotion_that_is_killed_before_the_alias_moves_has_not_happened(
    promotable: Project, command: str
) -> None:
    promote_until(promotable, MlflowClient, "set_registered_model_alias")
    store = open_store(promotable.folder)
    assert cli.main(command.split()) == 0
    (version,) = every_version(store)
    decisions = champions.read(promotable.folder)
    if command == "promote drawn":
        (decision,) = decisions
        assert decision.note == version.promoted
        assert "promotion.2" not in version.tags
    else:
        assert (decisions, version.promoted, registry.champion(store)) == ([], {}, None)
    assert cli.main(["verify"]) == 0


def test_a_registry_without_the_champion_of_git_gets_no_other_one(promotable: Project) -> None:
    assert cli.main(["promote", "drawn"]) == 0
    (decision,) = champions.read(promotable.folder)
    shutil.copy(promotable.fresh_store, promotable.folder)
    for command in ("drawn", "drawn --dry-run", "--rollback"):
        assert cli.main(["promote", *command.split()]) == 2
    assert registry.champion(open_store(promotable.folder)) is None
    assert champions.read(promotable.folder) == [decision]
    assert cli.main(["sync"]) == 0
    assert cli.main(["promote", "drawn"]) == 0
    assert "is already the champion" in promotable.capsys.readouterr().out

    gone = replace(decision.entrant, name="gone", training_id="b" * 32, model_sha256="c" * 64)
    note = {"at": timing.now(decision.note["at"])}
    champions.write(promotable.folder, Decision("promotion", gone, note))
    assert cli.main(["promote", "drawn"]) == 2
    assert [cli.main([command]) for command in ("sync", "verify")] == [1, 1]
    assert cli.main(["promote", "drawn", "--force", "--because", "gone is lost"]) == 0
    assert champions.read(promotable.folder)[-1].note["because"] == "gone is lost"
    assert cli.main(["promote", "drawn"]) == 0
    promotable.capsys.readouterr()
    assert [cli.main([command]) for command in ("sync", "verify")] == [0, 0]
    line = f"gone: the registry lacks its promotion of {note['at']}; its results are not here\n"
    out, err = promotable.capsys.readouterr()
    assert err == f"mnist-lstm sync: {line}"
    assert f"\nnote: {line}" in out


def test_the_last_champion_stays_although_the_clock_was_set_back(promotable: Project) -> None:
    assert cli.main(["promote", "drawn"]) == 0
    store, folder = open_store(promotable.folder), promotable.folder
    (first,) = champions.read(folder)
    (line,) = (folder / champions.FILE).read_text().splitlines()
    late = dict(first.note) | {"at": "2999-12-31T23:59:59.999+00:00"}  # by the clock of then
    store.client.set_model_version_tag(registry.MODEL, "1", "promotion.1", json.dumps(late))
    (folder / champions.FILE).write_text(line.replace(first.note["at"], late["at"]) + "\n")

    torch.manual_seed(1)
    with_results(folder, about("e" * 32, name="other"), accuracy=1.0)
    assert cli.main(["promote", "other"]) == 0
    decisions = champions.read(folder)
    assert [each.entrant.name for each in decisions] == ["drawn", "other"]
    assert decisions[-1].note["at"] == "3000-01-01T00:00:00.000+00:00"
    assert cli.main(["sync"]) == 0
    promoted = registry.champion(store)
    assert promoted
    assert promoted.entrant.name == "other"
    assert cli.main(["promote", "--rollback"]) == 0
    assert champions.read(folder)[-1].note["at"] == "3000-01-01T00:00:00.001+00:00"


def test_a_promotion_that_fails_leaves_no_line(promotable: Project) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("no")

    with promotable.monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", fail)
        assert cli.main(["promote", "drawn"]) == 2
    assert champions.read(promotable.folder) == []
    assert not (promotable.folder / champions.PENDING).exists()
    assert cli.main(["verify"]) == 0


def test_the_stages_go_on_where_the_store_is_full(project: Project) -> None:
    uri = f"sqlite:///{project.folder}/mlflow.db"
    with full():
        line = followed(project, uri)
    assert line == (
        f"MLflow store {uri}: {FULL}; the training continues, and evaluate will try again"
    )
    assert not list(project.folder.glob(".mlflow.db*"))  # of a draft
    shutil.copy(project.fresh_store, project.folder)
    with full():
        line = evaluated(project, uri)
    assert line == (
        f"MLflow store {uri}: {FULL}; all results are on disk, and `mnist-lstm sync` adds them "
        "there later"
    )


@pytest.mark.parametrize(
    ("command", "is_there"),
    [
        ("sync", True),
        ("sync", False),
        ("promote drawn", True),
        ("verify --fix", True),
    ],
)
def test_commands_say_in_one_line_that_the_store_is_full(
    project: Project, command: str, is_there: bool
) -> None:
    with_results(project.folder)
    project.with_history(results=False)
    if is_there:
        shutil.copy(project.fresh_store, project.folder)
        open_store(project.folder)
    with full():
        assert cli.main(command.split()) == 2
    assert project.capsys.readouterr().err == (
        f"mnist-lstm {command.split()[0]}: MLflow store sqlite:///{project.folder}/mlflow.db: "
        f"{FULL}\n"
    )


def test_a_command_that_waits_for_the_store_says_so(project: Project) -> None:
    shutil.copy(project.fresh_store, project.folder)
    store = open_store(project.folder)
    project.monkeypatch.setattr("mnist_lstm.commands.PATIENCE", 0.01)
    said: list[str] = []

    def opened(_: Path) -> Store:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
        said.append(project.capsys.readouterr().err)
        return store

    project.monkeypatch.setattr("mnist_lstm.tracking.store.open_store", opened)
    project.with_history(results=False)
    assert cli.main(["verify"]) == 0
    assert said == [
        "mnist-lstm verify: waiting for the MLflow store: another process may be using it\n"
    ]


def test_a_damaged_file_of_no_result_counts_unless_it_is_in_a_commit(
    project: Project,
) -> None:
    shutil.copy(project.fresh_store, project.folder)
    with_results(project.folder)
    project.with_history(results=False)
    assert cli.main(["sync"]) == 0
    assert cli.main(["verify"]) == 0
    run_cache = project.folder / ".dvc" / "cache" / "runs" / "ab" / "abc" / "train"
    run_cache.parent.mkdir(parents=True)
    run_cache.write_text("outs: [")
    project.capsys.readouterr()
    assert cli.main(["sync"]) == 1
    project.capsys.readouterr()
    assert cli.main(["verify", "--fix"]) == 1
    line = ".dvc/cache/runs/ab/abc/train: damaged: not readable as YAML; delete it"
    out, err = project.capsys.readouterr()
    assert err == f"mnist-lstm verify: left out: {line}\n"
    assert out.endswith("agrees with all 1 results\ndamaged files, named above: 1\n")
    assert cli.main(["verify", "--json"]) == 1
    (found,) = json.loads(project.capsys.readouterr().out)
    assert (found["name"], found["what"], found["fixed"]) == (None, line, False)

    run_cache.unlink()
    lock = (project.folder / "dvc.lock").read_bytes()
    (project.folder / "dvc.lock").write_bytes(b"<<<<<<< a\n1\n=======\n2\n>>>>>>> b\n")
    for command in (["init", "--quiet"], ["add", "dvc.lock"], [*AUTHOR, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], check=True)
    (project.folder / "dvc.lock").write_bytes(lock)
    assert cli.main(["verify"]) == 0
    assert ":dvc.lock: has the marks of an unresolved merge" in project.capsys.readouterr().err


@pytest.fixture
def readable(project: Project) -> Iterator[Project]:
    """A project in a folder that other users can read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(project.folder, folder, dirs_exist_ok=True)
        project.monkeypatch.chdir(folder)
        yield Project(folder, project.monkeypatch, project.capsys, project.fresh_store)
        project.monkeypatch.chdir(project.folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@pytest.fixture
def writable() -> Iterator[Path]:
    """A folder in which all users may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_project_that_is_read_only_answers_or_says_why_in_one_line(
    readable: Project, writable: Path
) -> None:
    readable.monkeypatch.setenv("HOME", str(readable.folder))
    shutil.copy(readable.fresh_store, readable.folder)
    with_results(readable.folder)
    readable.with_history(results=False)
    grey(GLYPH)(readable.folder / "picture.png")
    assert cli.main(["promote", "drawn"]) == 0
    commands = {
        "runs": 0,
        "predict picture.png": 0,
        "predict picture.png --explain": 2,
        "predict picture.png --run drawn": 0,
        "compare drawn drawn": 2,
        "verify": 0,
        "sync": 0,
        "promote drawn": 0,
        "report": 2,
        "draw": 2,
        "seeds 1 --record records": 2,
    }
    for command in commands:  # imports what it needs, which another user may not read
        if not command.startswith("seeds"):
            cli.main(command.split())
    (readable.folder / "draw.html").unlink(missing_ok=True)
    readable.capsys.readouterr()
    readable.monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(writable))
    for path in (readable.folder, *readable.folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for command, code in commands.items():
        with ordinary_user():
            assert cli.main(command.split()) == code, command
        *_, line = readable.capsys.readouterr().err.splitlines() or [""]
        assert code == 0 or line.startswith("mnist-lstm "), command


def test_a_checkpoint_stays_until_dvc_lock_has_the_training(project: Project) -> None:
    """A training that was started without DVC is known by its checkpoint alone."""
    project.training()
    checkpoint = project.folder / ".checkpoints" / "none" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert "no such file" in project.run("evaluate")  # the sequences, which it reads next
    assert checkpoint.exists()
    project.monkeypatch.setenv("DVC_STAGE", "evaluate")
    assert "no such file" in project.run("evaluate")
    assert checkpoint.exists()
    write_lock(project.folder)
    assert "no such file" in project.run("evaluate")
    assert not checkpoint.exists()


def test_a_training_whose_results_cannot_be_written_is_shown_as_failed(project: Project) -> None:
    project.sequences()
    project.edit("steps: .*", "steps: 2")
    shutil.copy(project.fresh_store, project.folder)

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")

    project.monkeypatch.setattr(RowLSTM, "save", refused)
    project.monkeypatch.setattr(stage, "code", lambda _: [])  # the project here has no src/
    assert "No space left on device" in project.run("train")
    assert [run.info.status for run in runs(open_store(project.folder))] == ["FAILED"]


def test_a_filter_that_fits_is_not_blamed_where_no_run_was_evaluated(project: Project) -> None:
    project.with_history(results=True)
    assert cli.main(["runs", "--where", "train.steps=1000", "--best", "3"]) == 1
    assert project.capsys.readouterr().err == (
        "mnist-lstm runs: none of 1 runs has train.steps=1000 and a final accuracy\n"
    )


def test_the_default_recipe_is_the_projects_wherever_the_command_starts(project: Project) -> None:
    (below := project.folder / "docs").mkdir()
    project.monkeypatch.chdir(below)
    root = stage.root()
    assert commands.recipe_file(argparse.Namespace(recipe=None), root) == Path("../params.yaml")
    named = Path("other.yaml")
    assert commands.recipe_file(argparse.Namespace(recipe=named), root) == named


def test_advice_works_in_a_folder_below_the_projects(project: Project) -> None:
    project.with_history(results=False)
    (below := project.folder / "docs").mkdir()
    project.monkeypatch.chdir(below)
    assert cli.main(["runs"]) == 1
    said = project.capsys.readouterr().err
    assert said == "mnist-lstm runs: no run yet: `cd .. && dvc repro` makes one\n"
    assert cli.main(["compare", "one", "two"]) == 2
    said = project.capsys.readouterr().err
    assert said == "mnist-lstm compare: no run yet: `cd .. && dvc repro` makes one\n"
    line = "`git checkout params.yaml` brings it back"  # which names the file from here
    assert commands.from_here(line) == line
    assert commands.from_here("`git checkout results` fixes that").startswith("`cd .. && git")


def test_the_answer_to_a_picture_that_may_be_misread_says_why(project: Project) -> None:
    line = predicted(grey(on_page(np.ones((20, 90)))), code=0)(project)
    arguments = ["predict", "picture.png", "--model", "model.safetensors", "--json"]
    assert cli.main(arguments) == 0
    (answer,) = json.loads(project.capsys.readouterr().out)
    assert answer["doubts"] == [line.removeprefix("mnist-lstm predict: picture.png: ")]
    grey(on_page(GLYPH / 255))(project.folder / "picture.png")
    assert cli.main(arguments) == 0
    (answer,) = json.loads(project.capsys.readouterr().out)
    assert answer["doubts"] == []


def test_the_markdown_of_a_report_is_printed_or_written(project: Project) -> None:
    evaluated_for_a_report(project)
    project.with_history(results=True)
    assert cli.main(["report", "--markdown"]) == 0
    printed = project.capsys.readouterr().out
    assert printed.startswith("## mnist-lstm: drawn\n")
    assert cli.main(["report", "--markdown", "--out", "report.md"]) == 0
    assert project.capsys.readouterr().out == "report.md\n"
    assert (project.folder / "report.md").read_text() == printed


@pytest.mark.parametrize(
    ("target", "script"), [("ui", "ui"), ("serve", "serve"), ("server", "mlflow_server")]
)
def test_a_port_that_is_empty_is_refused_in_one_line(
    project: Project, target: str, script: str
) -> None:
    line = made(project, target, "", script)
    assert line.startswith(f"make {target}: cannot use port (none)")


def test_beliefs_are_drawn_into_the_projects_folder(project: Project) -> None:
    predicted(grey(GLYPH), code=0)(project)
    (below := project.folder / "docs").mkdir()
    project.monkeypatch.chdir(below)
    arguments = ["../picture.png", "--model", "../model.safetensors", "--explain"]
    assert cli.main(["predict", *arguments]) == 0
    assert project.capsys.readouterr().err.endswith("pictures: ../belief\n")
    assert (project.folder / "belief" / "picture.belief.png").is_file()


def test_a_hostile_name_of_a_served_model_is_text(project: Project) -> None:
    settings = {"hidden_size": 16, "num_layers": 1, "dropout": 0.5, "forget_bias": 1.0}
    params = about().params | {"model": settings | {"implementation": "fused"}}
    with_champion(project, params=params, image=(8, 8))
    store = open_store(project.folder)
    store.client.set_model_version_tag(registry.MODEL, "1", "name", "\x1b[2J")
    project.monkeypatch.setattr(serving, "serve", lambda *_: None)
    make_serve = runpy.run_path(str(PROJECT / "scripts" / "serve.py"))["main"]
    make_serve("0")
    (run,) = runs(store)
    store.client.delete_run(run.info.run_id)
    with pytest.raises(SystemExit) as refused:
        make_serve("0")
    said = [project.capsys.readouterr().out, str(refused.value.code)]
    assert ["\\x1b[2J" in text and "\x1b" not in text for text in said] == [True, True]


def test_a_hostile_name_of_an_exported_model_is_text(project: Project) -> None:
    exported("served", code=0)(project)
    path = project.folder / "served" / "about.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "\x1b[2J"}))
    project.monkeypatch.setattr(serving, "serve", lambda *_: None)
    serving.main(["served", "127.0.0.1", "0"])
    said = project.capsys.readouterr().out
    assert "serve: \\x1b[2J: http" in said
    assert "\x1b" not in said


def test_a_hostile_name_of_a_picture_is_text(project: Project) -> None:
    with_results(project.folder)
    project.with_history(results=False)
    write_lock(project.folder)
    (picture := project.folder / "\x1b[2J.png").write_bytes(b"no picture")
    assert cli.main(["predict", picture.name]) == 1
    said = project.capsys.readouterr().err
    assert "\x1b" not in said
    assert "\\x1b[2J.png: not a PNG or JPEG image" in said
