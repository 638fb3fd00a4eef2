"""Two people promote at once, on a real tracking server: one is champion, the other is told."""

import multiprocessing
import sys
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from servers import free_port, server
from tracked import about, leave_results

from mnist_lstm.pipeline.result_files import read_run
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.entrant import Entrant
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import Store, TrackingError, open_store
from mnist_lstm.tracking.view import View

ROUNDS = 6
NAMES = ("ann", "bo")


def promote_at_once(name: str, root: Path, barrier: Barrier, tell: Connection) -> None:
    """Promote the version of this name in each round; tell the error, None for success."""
    store = open_store(root)
    versions = {one.entrant.name: one for one in registry.every(store)}
    for number in range(ROUNDS):
        instead_of = registry.champion(store)
        barrier.wait()
        try:
            note = {"by": name, "host": "here", "round": number}
            registry.promote(store, versions[name], instead_of, note)
        except TrackingError as error:
            tell.send(str(error))
        else:
            tell.send(None)
        barrier.wait()


def prepared(folder: Path) -> tuple[Store, dict[str, registry.Version]]:
    """A version for each of the names, and `first`, which is the champion."""
    store, versions = open_store(folder), {}
    for number, name in enumerate((*NAMES, "first")):
        torch.manual_seed(number)
        results = leave_results(folder / name, about(str(number) * 32))
        project(store, View.read(results / "train"))
        digest = read_run(results / "train" / "run.json").model_sha256
        entrant = Entrant(name, str(number) * 32, digest, "drawn", "d" * 64, 10, 0.5)
        versions[name] = registry.register(store, entrant)
    registry.promote(store, versions["first"], None, {})
    return store, versions


@pytest.mark.timeout(400)
def test_of_two_who_promote_at_once_one_is_champion(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, versions = prepared(root)
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = (
        *("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", local.uri, "--artifacts-destination", str(root / "mlruns")),
    )
    question = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=mnist-lstm"
    program = Path(sys.executable).parent / command[0]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server(program, *command[1:], folder=root, health=question, **environment):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(len(NAMES) + 1, timeout=300)
        pipes = [context.Pipe(duplex=False) for _ in NAMES]
        people = [
            context.Process(target=promote_at_once, args=(name, root, barrier, pipe[1]))
            for name, pipe in zip(NAMES, pipes, strict=True)
        ]
        for person in people:
            person.start()
        try:
            store = open_store(root)
            won = []
            for number in range(ROUNDS):
                barrier.wait()
                said = dict(zip(NAMES, (pipe.recv() for pipe, _ in pipes), strict=True))
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
                assert not registry.intents(store)
                first = versions["first"].number
                store.client.set_registered_model_alias(registry.MODEL, registry.ALIAS, first)
                barrier.wait()
            for version in registry.every(store):
                notes = [key for key in version.tags if key.startswith("promotion.")]
                expected = won.count(version.entrant.name) + (version.entrant.name == "first")
                assert len(notes) == expected
        finally:
            for person in people:
                person.terminate()
                person.join()


def test_an_intent_that_a_killed_process_left_is_waited_for_and_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, versions = prepared(root)
    left = f"{registry.INTENT}left"
    store.client.set_registered_model_tag(registry.MODEL, left, versions["bo"].number)
    monkeypatch.setattr(registry, "PATIENCE", 1.5)
    registry.promote(store, versions["ann"], versions["first"], {})
    champion = registry.champion(store)
    assert champion
    assert champion.entrant.name == "ann"
    assert not registry.intents(store)


def test_who_is_overwritten_before_the_second_look_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, whose intent was there before, moves the alias last."""
    store, versions = prepared(root)
    ann, bo = versions["ann"], versions["bo"]
    other = f"{registry.INTENT}other"
    store.client.set_registered_model_tag(registry.MODEL, other, bo.number)

    def pause(_: float) -> None:  # the other one acts while this one waits
        note = '{"by": "bo", "host": "far"}'
        store.client.set_model_version_tag(registry.MODEL, bo.number, "promotion.1", note)
        store.client.set_registered_model_alias(registry.MODEL, registry.ALIAS, bo.number)
        store.client.delete_registered_model_tag(registry.MODEL, other)

    monkeypatch.setattr("time.sleep", pause)
    with pytest.raises(TrackingError, match=r"it is bo, version \d, promoted by bo on far"):
        registry.promote(store, ann, versions["first"], {"by": "ann"})
    (mine,) = (one for one in registry.every(store) if one.number == ann.number)
    assert not mine.promoted
