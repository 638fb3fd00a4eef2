"""Several people on a real tracking server: who promotes at once, and how much `verify` asks."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import torch
from samples import PROJECT
from servers import free_port, listens_on, server
from tracked import about, evaluated, every_version, leave_results

from mnist_lstm.commands.sync import sync_runs
from mnist_lstm.pipeline.result_files import read_run
from mnist_lstm.runs.audit import Disagreement, disagreements
from mnist_lstm.runs.history import Files, History, Result
from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.entrant import Entrant
from mnist_lstm.tracking.overview import of_server
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.view import View

ROUNDS = 4
NAMES = ("ann", "bo")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, fresh_store: Path, warm_programs: Path
) -> Iterator[str]:
    """The address of what `make server` starts, for clients that wait as long as is needed."""
    folder = tmp_path_factory.mktemp("a server") / "50%"
    (folder / "server").mkdir(parents=True)
    shutil.copy(fresh_store, folder / "server")
    uri = f"http://127.0.0.1:{(port := free_port())}"
    question = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    command = (warm_programs / "python", PROJECT / "scripts" / "mlflow_server.py", str(port))
    path = f"{warm_programs}{os.pathsep}{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        with server(*command, folder=folder, health=question, WORKERS="1", PATH=path):
            yield uri
            assert listens_on(folder) == {"127.0.0.1"}
    said = (folder / "server.log").read_text()
    assert f"\n    export MLFLOW_TRACKING_URI={uri}\n" in said
    assert {path.name for path in folder.iterdir()} == {"server", "server.log"}
    assert {path.name for path in (folder / "server").iterdir()} == {"mlflow.db", "artifacts"}


class Results(History):
    """The history of results of train and evaluate in some folders."""

    def __init__(self, root: Path, folders: Sequence[Path]) -> None:
        self.root = root
        self.results = []
        for folder in folders:
            training, evaluation = (
                {str(path): "" for path in (folder / stage).iterdir()}
                for stage in ("train", "evaluate")
            )
            record = read_run(folder / "train" / "run.json")
            self.results.append(Result(record, training, [evaluation]))

    @contextmanager
    def laid_out(self, *every: Files) -> Iterator[list[Path]]:
        yield [Path(next(iter(files))).parent for files in every]


def test_verify_and_sync_ask_a_server_few_questions(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds what differs, although it downloads nothing that was uploaded as it is."""
    saved = tmp_path / "saved"
    save = mlflow.pytorch.save_model

    def save_once(model: object, path: str, **others: Any) -> None:
        if not saved.exists():
            save(model, str(saved), **others)
        shutil.copytree(saved, path)

    monkeypatch.setattr("mlflow.pytorch.save_model", save_once)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    torch.manual_seed(99)  # other weights than those of other tests, which have other versions
    store, folders = open_store(tmp_path), [tmp_path / str(number) for number in range(3)]
    asked: list[str] = []
    send = requests.Session.send

    def counted(self: requests.Session, request: Any, **others: Any) -> Any:
        asked.append(request.url)
        return send(self, request, **others)

    monkeypatch.setattr("requests.Session.send", counted)
    verified, synced = {}, {}
    for number, folder in enumerate(folders):
        leave_results(folder, about(f"{number:032}"))
        evaluated(folder / "evaluate", "2026-01-02T04:00:00+00:00", 10, f"{number:032}")
        project(store, View.read(folder / "train", [folder / "evaluate"]))
        if number == 0:
            champion = Entrant("drawn", f"{0:032}", "", "drawn", "d" * 64, 10, 0.5)
            digest = read_run(folder / "train" / "run.json").model_sha256
            registry.register(store, replace(champion, model_sha256=digest))
        else:
            history = Results(tmp_path, folders[: number + 1])
            asked.clear()
            assert found_by(store, history) == []
            verified[number + 1] = len(asked)
            asked.clear()
            assert sync_runs(store, history, of_server(store, runs(store))) == (0, 0)
            synced[number + 1] = len(asked)
    assert verified[3] <= 25
    assert verified[3] - verified[2] <= 3  # three for each run
    assert synced[3] <= 30
    assert synced[3] - synced[2] <= 4

    shown = {run.data.tags["training_id"]: run for run in runs(store)}
    one, other = (shown[f"{number:032}"] for number in range(2))
    store.client.log_text(one.info.run_id, "other", "evaluate/predictions.csv")
    store.client.log_metric(other.info.run_id, "train_loss", 7.0, step=60)
    first, second = found_by(store, history)
    assert first.lines == ["its artifact evaluate/predictions.csv is missing or differs"]
    assert second.lines == ["its train_loss has points that its training lacks"]
    for found in (first, second):
        assert found.mend
        found.mend()
    assert found_by(store, history) == []


def found_by(store: Store, history: History) -> list[Disagreement]:
    """The disagreements without those about the runs of other tests."""
    return [one for one in disagreements(store, history, store.root) if not one.note]


def prepared(folder: Path) -> tuple[Store, dict[str, registry.Version]]:
    """A version for each of the names, and `first`, which is the champion."""
    store, versions = open_store(folder), {}
    for number, name in enumerate((*NAMES, "first")):
        torch.manual_seed(number)
        record = about("abc"[number] * 32, user=name, host="far", folder="/its/clone")
        results = leave_results(folder / name, record)
        project(store, View.read(results / "train"))
        digest = read_run(results / "train" / "run.json").model_sha256
        entrant = Entrant(name, record.training_id, digest, "drawn", "d" * 64, 10, 0.5)
        versions[name] = registry.register(store, entrant)
    handover.promote(store, versions["first"], None, {})
    return store, versions


@pytest.mark.timeout(200)
def test_of_two_who_promote_at_once_one_is_champion(
    root: Path,
    served: str,
    warm_programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    _, versions = prepared(root)
    assert "Waiting" not in capfd.readouterr().err  # up to 300 s for a version, MLflow would say
    with promoting(root, warm_programs) as (tell, hear):
        store = open_store(root)
        won = []
        for number in range(ROUNDS):
            assert hear() == dict.fromkeys(NAMES, "ready\n")
            tell()
            said = {name: json.loads(line) for name, line in hear().items()}
            champion = registry.champion(store)
            assert champion
            assert [name for name, error in said.items() if error is None] == [
                champion.entrant.name
            ]
            (error,) = (error for error in said.values() if error)
            assert error.startswith("the champion has changed meanwhile: it is ")
            assert f"promoted by {champion.entrant.name} on here" in error
            assert champion.promoted["round"] == number
            won.append(champion.entrant.name)
            assert not handover.intents(store)
            first = versions["first"].number
            # the two set both of these at once; half of the rounds begin with no champion
            store.client.delete_registered_model_tag(registry.MODEL, registry.BEFORE)
            if number % 2:
                store.client.set_registered_model_alias(registry.MODEL, registry.ALIAS, first)
            else:
                store.client.delete_registered_model_alias(registry.MODEL, registry.ALIAS)
            tell()
        for version in every_version(store):
            notes = [key for key in version.tags if key.startswith("promotion.")]
            expected = won.count(version.entrant.name) + (version.entrant.name == "first")
            assert len(notes) == expected


@contextmanager
def promoting(
    root: Path, programs: Path
) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, str]]]]:
    """Start a process for each of the names: functions that tell and hear all of them a line."""
    script = str(Path(__file__).with_name("promoting.py"))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    people = {
        name: subprocess.Popen(
            [programs / "python", script, name, str(root), str(ROUNDS)], bufsize=1, **pipes
        )
        for name in NAMES
    }

    def tell() -> None:
        for person in people.values():
            person.stdin.write("\n")

    def hear() -> dict[str, str]:
        return {name: person.stdout.readline() for name, person in people.items()}

    try:
        yield tell, hear
    finally:
        for person in people.values():
            person.kill()
            person.communicate()


def test_an_intent_that_a_killed_process_left_is_waited_for_and_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, versions = prepared(root)
    left = f"{handover.INTENT}left"
    store.client.set_registered_model_tag(registry.MODEL, left, versions["bo"].number)
    monkeypatch.setattr(handover, "PATIENCE", 1.5)
    handover.promote(store, versions["ann"], versions["first"], {})
    champion = registry.champion(store)
    assert champion
    assert champion.entrant.name == "ann"
    assert not handover.intents(store)


def test_who_is_overwritten_before_the_second_look_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, whose intent was there before, moves the alias last."""
    store, versions = prepared(root)
    ann, bo = versions["ann"], versions["bo"]
    other = f"{handover.INTENT}other"
    store.client.set_registered_model_tag(registry.MODEL, other, bo.number)

    def pause(_: float) -> None:  # the other one acts while this one waits
        note = '{"by": "bo", "host": "far"}'
        store.client.set_model_version_tag(registry.MODEL, bo.number, "promotion.1", note)
        store.client.set_registered_model_alias(registry.MODEL, registry.ALIAS, bo.number)
        store.client.delete_registered_model_tag(registry.MODEL, other)

    monkeypatch.setattr("time.sleep", pause)
    with pytest.raises(TrackingError, match=r"it is bo, version \d, promoted by bo on far"):
        handover.promote(store, ann, versions["first"], {"by": "ann"})
    (mine,) = (one for one in every_version(store) if one.number == ann.number)
    assert not mine.promoted
