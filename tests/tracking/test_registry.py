"""The registered model, its versions and its champion, in a real store."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from samples import drawn
from tracked import about, leave_results

from mnist_lstm.model import Classifier, RowLSTM
from mnist_lstm.promotion import Entrant
from mnist_lstm.results import read_json
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import Store, TrackingError
from mnist_lstm.tracking.view import View


@pytest.fixture
def entrants(store: Store, tmp_path: Path) -> list[Entrant]:
    """Three models whose runs are in the store."""
    made = []
    for number, letter in enumerate("abc"):
        torch.manual_seed(number)
        folder = leave_results(tmp_path / letter, **about(letter * 32))
        project(store, View.read(folder / "train"))
        digest = read_json(folder / "train" / "run.json")["model_sha256"]
        made.append(Entrant(letter, letter * 32, digest, "drawn", "d" * 64, 10, number / 10))
    return made


def champion(store: Store) -> str | None:
    found = registry.champion(store)
    return found.entrant.name if found else None


def promote(store: Store, entrant: Entrant) -> registry.Version:
    version = registry.register(store, entrant)
    registry.promote(store, version, registry.champion(store), {"why": f"{entrant.name} is good"})
    return version


def test_a_model_is_registered_once_and_is_promoted_and_returned(
    store: Store, entrants: list[Entrant]
) -> None:
    one, two, three = entrants
    assert champion(store) is None
    assert registry.former(store) is None
    assert registry.roll_back(store, {}) is None
    version = registry.register(store, one)
    assert registry.register(store, replace(one, training_id="x" * 32)) == version
    assert (version.number, version.entrant) == ("1", one)
    assert version.tags["model_sha256"] == one.model_sha256
    assert champion(store) is None  # registered is not promoted

    for entrant in entrants:
        promote(store, entrant)
        assert champion(store) == entrant.name
    found = registry.champion(store)
    assert found
    assert (found.number, found.model_sha256, found.training_id) == (
        "3",
        three.model_sha256,
        "c" * 32,
    )
    assert json.loads(found.tags["promotion.1"]) == {"why": "c is good"}
    former = registry.former(store)
    assert former
    assert former.entrant == two
    assert champion(store) == "c"  # to ask changes nothing

    registry.roll_back(store, {"because": "too slow"})
    assert champion(store) == "b"
    left = registry.registered(store, three.model_sha256)
    assert left
    assert json.loads(left.tags["return.1"]) == {"because": "too slow"}
    registry.roll_back(store, {})
    assert champion(store) == "a"
    assert registry.roll_back(store, {}) is None
    assert champion(store) == "a"
    promote(store, three)
    again = registry.champion(store)
    assert again
    assert again.number == "3"
    assert {"promotion.1", "promotion.2"} <= again.tags.keys()


def test_versions_that_were_deleted_are_passed_over(store: Store, entrants: list[Entrant]) -> None:
    for entrant in entrants:
        promote(store, entrant)
    store.client.delete_model_version(registry.MODEL, "2")
    registry.roll_back(store, {})
    assert champion(store) == "a"
    store.client.delete_model_version(registry.MODEL, "1")
    assert champion(store) is None
    promote(store, entrants[0])
    found = registry.champion(store)
    assert found
    assert found.number == "4"  # the deleted one is no version of it any more


def test_one_that_was_judged_against_another_champion_is_refused(
    store: Store, entrants: list[Entrant]
) -> None:
    promote(store, entrants[0])
    version = registry.register(store, entrants[1])
    with pytest.raises(TrackingError, match="the champion has changed meanwhile"):
        registry.promote(store, version, None, {})
    assert champion(store) == "a"


def test_the_champion_is_what_mlflow_loads_by_its_alias(
    store: Store, entrants: list[Entrant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, entrants[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loaded = mlflow.pyfunc.load_model(f"models:/{registry.MODEL}@{registry.ALIAS}")
    pixels = drawn(3, seed=0).pixels
    model = RowLSTM.load(tmp_path / "b" / "train" / "model.safetensors")
    expected = Classifier(model).eval()(pixels)
    answer = torch.from_numpy(loaded.predict(pixels.numpy()))
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)
