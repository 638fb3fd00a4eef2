"""Real MLflow, on a SQLite store of the test's own."""

import shutil
import threading
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.entities import ViewType
from samples import PROJECT, drawn, small_model

from mnist_lstm import tracking
from mnist_lstm.clock import Timing
from mnist_lstm.files import sha256
from mnist_lstm.model import Classifier
from mnist_lstm.results import Training, row, write_json, write_rows
from mnist_lstm.tracking import Follower, Run, TrackingError, flat, open_store, project, uri_of
from mnist_lstm.training import Evaluation

STEPS = (50, 100)
ROWS = [row(Evaluation(step, 0, 0.5, step / 1000, step / 999, 1 / step)) for step in STEPS]
TIMINGS = [
    row(
        Timing(
            step,
            f"2026-01-02T03:{4 + step // 60:02}:{step % 60:02}+00:00",
            1.0,
            200.0,
            150.0,
            None,
            None,
        )
    )
    for step in STEPS
]


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without an experiment: building its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, fresh_store: Path) -> Path:
    shutil.copy(fresh_store, tmp_path)
    return tmp_path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What train and evaluate leave."""
    folder = tmp_path / "results"
    model = small_model()
    model.save(folder / "train" / "model.safetensors")
    ended = {"ended": TIMINGS[-1]["time"]}
    digest = {"model_sha256": sha256(folder / "train" / "model.safetensors")}
    Training(about() | ended | digest, ROWS, TIMINGS).write(folder / "train")
    write_json(folder / "evaluate" / "metrics.json", {"test": {"accuracy": 0.1, "loss": 0.2}})
    write_rows(folder / "evaluate" / "predictions.csv", [{"actual": 1, "predicted": 1}])
    settings = {"params": {"evaluate.batch_size": 10}, "ended": "2026-01-02T04:00:00+00:00"}
    write_json(folder / "evaluate" / "run.json", settings)
    return folder


def about(training_id: str = "a" * 32) -> dict[str, object]:
    return {
        "training_id": training_id,
        "name": "drawn",
        "started": "2026-01-02T03:04:00+00:00",
        "fingerprint": "f",
        "dataset": "drawn",
        "image": [8, 8],
        "data": {
            split: {"file": f"data/{split}", "images": 10, "sha256": letter * 64}
            for split, letter in (("train", "d"), ("test", "e"))
        },
        "device": "cpu",
        "threads": 2,
        "precision": "float32",
        "commit": "c" * 40,
        "dirty": True,
        "dvc_experiment": None,
        "versions": {"torch": "1"},
        "params": {
            "seed": 0,
            "model": {"num_layers": 2, "hidden_size": 16, "dropout": 0.5},
            "train": {"steps": 1000, "batch_size": 128, "learning_rate": 0.01},
        },
        "patch": "diff",
    }


def runs(root: Path) -> list[mlflow.entities.Run]:
    store = open_store(root)
    return list(store.client.search_runs([store.experiment_id]))


def contents(root: Path, run: mlflow.entities.Run) -> dict[str, object]:
    """All that a store has of a run, but for its own identifiers."""
    client = open_store(root).client
    histories = {
        key: [
            (m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key)
        ]
        for key in run.data.metrics
    }
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    times = (run.info.start_time, run.info.end_time, run.info.status)
    return {"m": histories, "p": run.data.params, "t": run.data.tags, "f": files, "i": times}


def test_the_store_is_that_of_the_root_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uri_of(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert uri_of(tmp_path) == "http://127.0.0.1:9"


def test_the_experiment_has_an_absolute_place_for_artifacts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    store = open_store(root)
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.name == "mnist-lstm"
    assert experiment.artifact_location == (root / "mlruns").as_uri()
    assert open_store(root).experiment_id == store.experiment_id


def test_several_may_open_a_store_at_once(root: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(open_store(root).experiment_id))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_training_is_one_run_however_often_it_is_shown(root: Path, results: Path) -> None:
    for _ in range(2):
        project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
        (run,) = runs(root)
        seen = contents(root, run)
        assert seen["p"] == {
            "seed": "0",
            "model.num_layers": "2",
            "model.hidden_size": "16",
            "model.dropout": "0.5",
            "train.steps": "1000",
            "train.batch_size": "128",
            "train.learning_rate": "0.01",
        }
        assert seen["i"] == (1767323040000, 1767323140000, "FINISHED")
        histories = seen["m"]
        assert isinstance(histories, dict)
        assert histories["test_accuracy"] == [
            (50, 1767323090000, ROWS[0]["test_accuracy"]),
            (100, 1767323140000, ROWS[1]["test_accuracy"]),
        ]
        assert histories["evaluation/test/accuracy"] == [(100, 1767326400000, 0.1)]
        assert histories["system/process_cpu_utilization_percentage"][0][2] == 150
        tags = run.data.tags
        assert tags["training_id"] == "a" * 32
        assert tags["dirty"] == "True"
        assert tags["evaluate.batch_size"] == "10"
        assert tags["version.torch"] == "1"
        assert "dvc_experiment" not in tags
        assert tags["model_sha256"] == sha256(results / "train" / "model.safetensors")
        assert seen["f"] == {"train", "evaluate", "params.yaml", "code.patch"}
        assert len(run.outputs.model_outputs) == 1
        inputs = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs}
        assert inputs == {("drawn train", "d" * 32), ("drawn test", "e" * 32)}
        assert len(run.inputs.dataset_inputs) == 2
        assert tags["mlflow.note.content"] == (
            "A dropout LSTM (2 layers of 16 units, dropout 0.5) on drawn, a pixel row at a time. "
            "1,000 steps of 128 out of 10 images, learning rate 0.01, seed 0, on cpu with 2 "
            "threads in float32. Made by commit cccccccccc, with changes that are in code.patch."
        )


def test_a_lost_run_is_made_anew_from_its_files(root: Path, results: Path) -> None:
    def show() -> dict[str, object]:
        project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
        (run,) = runs(root)
        return contents(root, run)

    first = show()
    (run,) = runs(root)
    open_store(root).client.delete_run(run.info.run_id)
    second = show()
    assert second == first


def test_a_half_logged_run_is_completed(root: Path, results: Path) -> None:
    follower = Follower(root, about(), report=pytest.fail)
    follower.log_rows(ROWS[:1], TIMINGS[:1])
    (run,) = runs(root)
    assert run.info.status == "RUNNING"
    assert run.data.metrics["test_accuracy"] == ROWS[0]["test_accuracy"]
    project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
    (run,) = runs(root)
    assert run.info.status == "FINISHED"
    history = open_store(root).client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [metric.step for metric in history] == [50, 100]


def test_a_new_evaluation_is_added_behind_the_earlier(root: Path, results: Path) -> None:
    project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
    settings = {"params": {"evaluate.batch_size": 20}, "ended": "2026-01-02T05:00:00+00:00"}
    write_json(results / "evaluate" / "run.json", settings)
    write_json(results / "evaluate" / "metrics.json", {"test": {"accuracy": 0.3}})
    project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
    (run,) = runs(root)
    assert run.data.metrics["evaluation/test/accuracy"] == 0.3
    assert run.data.tags["evaluate.batch_size"] == "20"


def test_two_trainings_of_one_fingerprint_are_two_runs(root: Path) -> None:
    store = open_store(root)
    one, two = Run(store, about("1" * 32)), Run(store, about("2" * 32))
    assert one.id != two.id
    assert Run(store, about("1" * 32)).id == one.id


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_logged_model_answers_as_ours_without_pickle(
    root: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model, store = small_model().train(), open_store(root)
    run, pixels = Run(store, about()), drawn(batch, seed=0).pixels
    for _ in range(2):
        run.log_model(Classifier(model), pixels[:1].repeat(2, 1, 1), "digest")
    (found,) = store.client.search_logged_models([store.experiment_id])
    assert found.status == "READY"
    assert found.tags["model_sha256"] == "digest"
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loaded = mlflow.pyfunc.load_model(found.artifact_location)
    answer = torch.from_numpy(loaded.predict(pixels.numpy()))
    ours = Classifier(model.eval())(pixels)
    torch.testing.assert_close(answer, ours, rtol=0, atol=1e-6)


def test_default_is_never_used(root: Path, results: Path) -> None:
    project(root, results / "train", results / "evaluate", PROJECT / "params.yaml")
    client = open_store(root).client
    assert client.search_runs(["0"], run_view_type=ViewType.ALL) == []
    assert client.search_logged_models(["0"]) == []


def test_a_store_that_does_not_open_is_said_once_and_hurts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"MLflow store http://127\.0\.0\.1:9: "):
        open_store(tmp_path)
    said: list[str] = []
    follower = Follower(tmp_path, about(), said.append)
    follower.log_rows(ROWS, TIMINGS)
    follower.finish("FINISHED", about() | {"ended": TIMINGS[-1]["time"]})
    (line,) = said
    assert "training goes on" in line
    assert "\n" not in line


def test_flat() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}}, "/") == {"a": 1, "b/c": 2, "b/d/e": 3}


def test_no_usage_reports_are_sent() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert tracking.EXPERIMENT == "mnist-lstm"
