"""The registered model, its versions and its champion, in a real MLflow store."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from dvc.repo import Repo
from mlflow.exceptions import RestException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from samples import PROJECT, drawn, write_lock
from tracked import about, evaluated, every_version, leave_results

from mnist_lstm import UserError
from mnist_lstm.cli import main
from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.pipeline.result_files import SplitRecord, read_run, write_json, write_rows
from mnist_lstm.runs import predictor
from mnist_lstm.runs.history import History
from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.entrant import Decision, Entrant
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.view import View


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, fresh_store: Path) -> Path:
    """A folder with the results of three trainings, whose runs are in its MLflow store."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(fresh_store, folder)
    for number, letter in enumerate("abc"):
        torch.manual_seed(number)
        results = leave_results(folder / letter, about(letter * 32))
        project(open_store(folder), View.read(results / "train"))
    return folder


@pytest.fixture
def root(shown: Path, tmp_path: Path) -> Path:
    _artifact_repos_cache.clear()  # which another process would not have
    return shutil.copytree(shown, tmp_path / "project")


@pytest.fixture
def entrants(root: Path) -> list[Entrant]:
    """The three models."""
    made = []
    for number, letter in enumerate("abc"):
        digest = read_run(root / letter / "train" / "run.json").model_sha256
        made.append(Entrant(letter, letter * 32, digest, "drawn", "d" * 64, 10, number / 10))
    return made


def champion(store: Store) -> str | None:
    found = registry.champion(store)
    return found.entrant.name if found else None


def roll_back(store: Store, note: dict[str, str] | None = None) -> registry.Version | None:
    back = handover.former(store)
    if back:
        handover.roll_back(store, note or {}, back)
    return back


def promote(store: Store, entrant: Entrant) -> registry.Version:
    version = registry.register(store, entrant)
    handover.promote(store, version, registry.champion(store), {"why": f"{entrant.name} is good"})
    return version


def test_a_decision_was_made_if_its_model_was_the_champion_then(
    store: Store, entrants: list[Entrant]
) -> None:
    one, two, three = entrants

    def decided(hour: int, what: str, entrant: Entrant) -> Decision:
        return Decision(what, entrant, {"at": f"2026-01-02T0{hour}:00:00.000+00:00"})

    every = [
        decided(1, "promotion", one),
        decided(2, "promotion", two),
        decided(3, "return", one),
        decided(4, "promotion", three),
    ]
    for decision in every:
        assert not handover.was_made(store, decision)
        left = registry.champion(store)
        if decision.what == "return":
            roll_back(store, dict(decision.note))
        else:
            version = registry.register(store, decision.entrant)
            note = dict(decision.note) | ({"instead_of": left.number} if left else {})
            handover.promote(store, version, left, note)
        assert handover.was_made(store, decision)
    for decision in every:
        assert handover.was_made(store, decision)
        for other in entrants:
            if other != decision.entrant and decision is not every[-1]:
                assert not handover.was_made(store, replace(decision, entrant=other))
    present = registry.champion(store)
    assert present
    with pytest.raises(TrackingError, match="the champion has changed meanwhile"):
        handover.roll_back(store, {}, present)


def test_of_two_who_register_a_model_at_once_both_have_one_version(
    store: Store, entrants: list[Entrant], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, really = entrants[0], registry._register

    def register_twice(*what: Any) -> Any:
        really(*what)
        return really(*what)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_register", register_twice)
        assert registry.register(store, one).number == "1"
    assert [each.number for each in every_version(store)] == ["1"]

    # two versions, as an earlier version of this project may have left them
    (run,) = runs(store, f"tags.training_id = '{one.training_id}'")
    second = registry.as_version(really(store, run, one))
    decision = Decision("promotion", one, {"at": "2026-01-02T03:00:00.000+00:00"})
    handover.promote(store, second, None, decision.note)
    assert handover.was_made(store, decision)


def test_a_model_is_registered_once_and_is_promoted_and_returned(
    store: Store, entrants: list[Entrant]
) -> None:
    one, two, three = entrants
    assert champion(store) is None
    assert handover.former(store) is None
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
    former = handover.former(store)
    assert former
    assert former.entrant == two
    assert champion(store) == "c"  # to ask changes nothing

    roll_back(store, {"because": "too slow"})
    assert champion(store) == "b"
    left = registry.registered(store, three.model_sha256)
    assert left
    assert json.loads(left.tags["return.1"]) == {"because": "too slow"}
    roll_back(store)
    assert champion(store) == "a"
    assert roll_back(store) is None
    assert champion(store) == "a"
    promote(store, three)
    again = registry.champion(store)
    assert again
    assert again.number == "3"
    assert {"promotion.1", "promotion.2"} <= again.tags.keys()


def test_a_registry_that_is_lost_comes_back_from_the_decisions(
    shown: Path, root: Path, store: Store, entrants: list[Entrant], tmp_path: Path
) -> None:
    one, two, three = entrants
    decided = [
        Decision("promotion", one, {"at": "2026-01-01", "why": "the first"}),
        Decision("promotion", two, {"at": "2026-01-02", "why": "better"}),
        Decision("promotion", three, {"at": "2026-01-03", "why": "best"}),
        Decision("return", two, {"at": "2026-01-04", "because": "too slow"}),
    ]
    assert len(handover.lacking(store, decided)) == 5
    handover.restore(store, decided)
    assert handover.lacking(store, decided) == []
    assert champion(store) == "b"
    notes = {
        each.entrant.name: {
            key: json.loads(text)
            for key, text in each.tags.items()
            if key.startswith(("promotion.", "return."))
        }
        for each in every_version(store)
    }
    assert notes == {
        "a": {"promotion.1": dict(decided[0].note)},
        "b": {"promotion.1": dict(decided[1].note)},
        "c": {"promotion.1": dict(decided[2].note), "return.1": dict(decided[3].note)},
    }
    handover.restore(store, decided)  # which adds nothing
    assert len(every_version(store)) == 3
    former = handover.former(store)
    assert former
    assert former.entrant == one
    promote_again = registry.register(store, three)
    handover.promote(store, promote_again, registry.champion(store), {"at": "2026-01-05"})
    assert handover.lacking(store, decided) == []  # this registry knows more than the file
    assert champion(store) == "c"


def test_a_promotion_during_a_restoration_stays(
    store: Store, entrants: list[Entrant], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = entrants
    decided = [Decision("promotion", one, {"at": "2026-01-01"})]

    def register_while_another_promotes(store: Store, entrant: Entrant) -> registry.Version:
        promote(store, two)
        return registry.register(store, entrant)

    monkeypatch.setattr(handover, "register", register_while_another_promotes)
    with pytest.raises(TrackingError, match="the champion has changed meanwhile: it is b"):
        handover.restore(store, decided)
    assert champion(store) == "b"
    later = registry.champion(store)
    handover.promote(store, registry.register(store, two), later, {"at": "2026-01-02"})
    handover.restore(store, decided)  # which was lacking a moment ago
    assert champion(store) == "b"


def test_a_decision_about_a_model_that_is_gone_is_left_out(
    store: Store, entrants: list[Entrant]
) -> None:
    gone = replace(entrants[0], name="gone", training_id="x" * 32, model_sha256="y" * 64)
    decided = [
        Decision("promotion", gone, {"at": "2026-01-01"}),
        Decision("promotion", entrants[1], {"at": "2026-01-02"}),
    ]
    handover.restore(store, decided)
    (lack,) = handover.lacking(store, decided)
    line = "the registry lacks its promotion of 2026-01-01; its results are not here"
    assert lack == (decided[0], line, False, True)
    assert champion(store) == "b"
    assert handover.former(store) is None

    last = replace(decided[0], note={"at": "2026-01-03"})
    promote(store, entrants[2])
    handover.restore(store, [*decided, last])  # nor does the registry go back to b
    assert champion(store) == "c"
    assert handover.former(store)
    lacks = handover.lacking(store, [*decided, last])
    assert {each.decision.entrant.name for each in lacks} == {"gone"}
    assert {each.decision.note["at"]: each.is_past for each in lacks} == {
        "2026-01-01": True,
        "2026-01-03": False,
    }


def test_deleted_versions_are_skipped(store: Store, entrants: list[Entrant]) -> None:
    for entrant in entrants:
        promote(store, entrant)
    store.client.delete_model_version(registry.MODEL, "2")
    roll_back(store)
    assert champion(store) == "a"
    store.client.delete_model_version(registry.MODEL, "1")
    assert champion(store) is None
    promote(store, entrants[0])
    found = registry.champion(store)
    assert found
    assert found.number == "4"  # the deleted one is no version of it any more


def test_a_model_that_was_compared_with_another_champion_is_refused(
    store: Store, entrants: list[Entrant]
) -> None:
    promote(store, entrants[0])
    version = registry.register(store, entrants[1])
    with pytest.raises(TrackingError, match="the champion has changed meanwhile"):
        handover.promote(store, version, None, {})
    assert champion(store) == "a"


def test_the_champion_is_what_mlflow_loads_also_where_the_project_was_moved(
    store: Store,
    root: Path,
    entrants: list[Entrant],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote(store, entrants[1])
    model = RowLSTM.load(root / "b" / "train" / "model.safetensors")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert_loads(store, model)

    there = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(root, there)
    shutil.rmtree(root)
    _artifact_repos_cache.clear()
    moved = open_store(there)
    assert (root / "mlruns").as_uri() in "".join(moved.changes)
    assert champion(moved) == "b"
    assert_loads(moved, model)
    promote(moved, entrants[2])
    roll_back(moved)
    assert champion(moved) == "b"


def test_the_versions_of_a_run_that_was_made_again_follow_it(
    store: Store, root: Path, entrants: list[Entrant]
) -> None:
    for entrant in entrants[:2]:
        promote(store, entrant)
    store.client.update_model_version(registry.MODEL, "1", "the first one")
    assert registry.outdated(store) == []
    for letter in "ab":
        (run,) = runs(store, f"tags.training_id = '{letter * 32}'")
        store.client.delete_run(run.info.run_id)
        assert project(store, View.read(root / letter / "train")) == ["it has no run"]

    one, two = registry.outdated(store)
    made = registry.renew(store, two)
    assert (two.number, made.number) == ("2", "3")
    assert champion(store) == "b"
    found = store.client.get_model_version_by_alias(registry.MODEL, registry.ALIAS)
    (run,) = runs(store, f"tags.training_id = '{'b' * 32}'")
    assert (found.version, found.run_id) == (3, run.info.run_id)
    assert found.source == f"models:/{run.outputs.model_outputs[0].model_id}"
    assert json.loads(made.tags["promotion.1"]) == {"why": "b is good"}
    assert_loads(store, RowLSTM.load(root / "b" / "train" / "model.safetensors"))
    assert registry.registered(store, two.model_sha256) == made

    assert registry.outdated(store) == [one]
    made = registry.renew(store, one)
    assert registry.outdated(store) == []
    assert registry.renew(store, made) == made  # there is nothing to do
    former = roll_back(store)
    assert former
    assert (former.number, former.entrant.name) == (made.number, "a")
    assert store.client.get_model_version(registry.MODEL, made.number).description == (
        "the first one"
    )


def assert_loads(store: Store, model: RowLSTM) -> None:
    """MLflow loads this model by the alias, if the environment names the store."""
    pixels = drawn(3, seed=0, rows=2).pixels
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", store.uri)
        loaded = mlflow.pyfunc.load_model(f"models:/{registry.MODEL}@{registry.ALIAS}")
    answer = torch.from_numpy(loaded.predict(pixels.numpy()))
    torch.testing.assert_close(answer, Classifier(model).eval()(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("accuracy", "preprocess", "code"), [(0.2, {}, 1), (0.3, {}, 0), (0.3, {"train_size": 7}, 0)]
)
def test_a_champion_without_results_is_compared_by_its_tags(
    store: Store,
    root: Path,
    entrants: list[Entrant],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    accuracy: float,
    preprocess: dict[str, int],
    code: int,
) -> None:
    promote(store, entrants[2])
    for letter in "abc":
        shutil.rmtree(root / letter)
    torch.manual_seed(3)
    digest = ("e" if preprocess else "d") * 64  # a file of images begins with the parameters
    data = {**about().data, "validation": SplitRecord("file", 10, digest)}
    params = {**about().params, "preprocess": preprocess}
    results = leave_results(root / "results", about("e" * 32, data=data, params=params))
    evaluated(results / "evaluate", "2026-01-02T04:00:00+00:00", 10, training_id="e" * 32)
    write_json(results / "evaluate" / "metrics.json", {"validation": {"accuracy": accuracy}})
    write_lock(root)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, root)
    monkeypatch.chdir(root)
    Repo.init(no_scm=True).close()
    assert main(["promote", "drawn", "--dry-run"]) == code
    printed = capsys.readouterr()
    assert "20.00% (2 of 10)" in printed.out + printed.err
    assert champion(store) == "c"


@pytest.mark.parametrize("names", [["up", "down"], []])
def test_a_version_is_read_from_mlflow_if_its_results_are_gone(
    root: Path, store: Store, entrants: list[Entrant], names: list[str]
) -> None:
    """Its classes have their names at its evaluation or, if that is not there, numbers."""
    torch.manual_seed(5)
    model = {**about().params["model"], "num_layers": 1}  # as that of leave_results
    settings = model | {"forget_bias": 1.0, "implementation": "fused"}
    params = {**about().params, "model": settings}
    results = leave_results(root / "d", about("d" * 32, params=params))
    evaluation = results / "evaluate"
    evaluated(evaluation, "2026-01-02T04:00:00+00:00", 10, training_id="d" * 32)
    if names:
        write_rows(evaluation / "classes.csv", [{"class": name} for name in names])
    project(store, View.read(results / "train", [evaluation]))
    (root / "data" / "raw").mkdir(parents=True)
    (root / "data" / "raw" / "classes.txt").write_text("of\nanother\n")
    weights = results / "train" / "model.safetensors"
    entrant = replace(
        entrants[1],
        training_id="d" * 32,
        model_sha256=read_run(weights.with_name("run.json")).model_sha256,
    )
    version = promote(store, entrant)
    expected = RowLSTM.load(weights)
    for letter in "abcd":
        shutil.rmtree(root / letter)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, root)
    Repo.init(str(root), no_scm=True).close()
    chosen = predictor.of_version(History(root), store, version)
    assert (chosen.dataset, chosen.image) == (about().dataset, about().image)
    assert chosen.source == "version 1 of row-lstm, of b"
    assert list(chosen.classes) == (names or ["0", "1"])
    for name, weight in expected.state_dict().items():
        assert torch.equal(chosen.model.state_dict()[name], weight)
    other = replace(version, entrant=replace(version.entrant, model_sha256="0" * 64))
    with pytest.raises(UserError, match="its model in MLflow is not the one that was registered"):
        predictor.of_version(History(root), store, other)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("validation_images", "1,000"),
        ("validation_images", "-1"),
        ("validation_accuracy", "98 %"),
        ("validation_accuracy", "nan"),
    ],
)
def test_a_number_that_was_changed_in_a_tag_is_named(
    store: Store, entrants: list[Entrant], tag: str, text: str
) -> None:
    promote(store, entrants[0])
    store.client.set_model_version_tag("row-lstm", "1", tag, text)
    with pytest.raises(TrackingError) as error:
        registry.champion(store)
    assert str(error.value).startswith(f"row-lstm version 1: its tag {tag} must be a number")
    assert str(error.value).endswith(f", is '{text}'; correct it in MLflow")


@pytest.mark.parametrize("text", ['["1"', "1", ""])
def test_a_list_of_former_champions_that_was_changed_is_named(
    store: Store, entrants: list[Entrant], text: str
) -> None:
    """And no promotion writes over it."""
    promote(store, entrants[0])
    promote(store, entrants[1])
    store.client.set_registered_model_tag("row-lstm", registry.BEFORE, text)
    with pytest.raises(TrackingError, match="its tag champions_before must be a list of version"):
        roll_back(store)
    with pytest.raises(TrackingError, match="its tag champions_before must be a list of version"):
        promote(store, entrants[2])
    assert champion(store) == "b"
    assert store.client.get_registered_model("row-lstm").tags[registry.BEFORE] == text
    store.client.delete_registered_model_tag("row-lstm", registry.BEFORE)
    promote(store, entrants[2])
    assert champion(store) == "c"


def test_a_server_with_logins_hides_a_model_that_is_not_there(
    store: Store, entrants: list[Entrant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses a question about the model, whether it is not there or may not be read."""
    client = store.client

    def refuses(*_: object) -> None:
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})

    with monkeypatch.context() as patch:
        patch.setattr(client, "get_model_version_by_alias", refuses)
        patch.setattr(client, "get_registered_model", refuses)
        assert champion(store) is None
        assert registry.register(store, entrants[0]).number == "1"
        with pytest.raises(TrackingError, match="you have no permission for this"):
            champion(store)
    assert champion(store) is None
