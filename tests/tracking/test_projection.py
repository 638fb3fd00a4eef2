"""Runs in real MLflow, on a temporary SQLite store."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.entities import LoggedModel, Metric, ViewType
from samples import drawn
from tracked import ROWS, TIMINGS, about, contents, evaluated

from mnist_lstm.files import sha256
from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.result_files import Row, Training, write_json
from mnist_lstm.tracking.differences import differences
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import NOTE, Store, open_store
from mnist_lstm.tracking.stored_runs import mark_killed, runs
from mnist_lstm.tracking.tracked_run import TrackedRun
from mnist_lstm.tracking.view import View


def read(results: Path) -> View:
    return View.read(results / "train", [results / "evaluate"])


def show(store: Store, results: Path) -> mlflow.entities.Run:
    project(store, read(results))
    (run,) = runs(store)
    return run


def test_a_training_is_one_run_however_often_it_is_shown(
    store: Store, results: Path, tmp_path: Path
) -> None:
    assert project(store, read(results)) == ["it has no run"]
    assert project(store, read(results)) == []
    (run,) = runs(store)
    seen = contents(store, run, tmp_path / "seen")
    assert seen["params"] == {
        "seed": "0",
        "model.num_layers": "2",
        "model.hidden_size": "16",
        "model.dropout": "0.5",
        "train.steps": "1000",
        "train.batch_size": "128",
        "train.learning_rate": "0.01",
    }
    assert seen["times"] == (1767323040000, 1767323140000, "FINISHED", "drawn")
    histories = seen["metrics"]
    assert isinstance(histories, dict)
    assert histories["test_accuracy"] == [
        (50, 1767323090000, ROWS[0]["test_accuracy"]),
        (100, 1767323140000, ROWS[1]["test_accuracy"]),
        (100, 1767326400000, 0.1),  # by the stage evaluate, on the same weights
    ]
    # a metric without a curve has step 0: MLflow draws a bar then, and otherwise a line of one dot
    assert histories["when_trained_test_loss"] == [(0, 1767326400000, 0.2)]
    assert histories["system/process_cpu_utilization_percentage"][0][2] == 150
    tags = run.data.tags
    assert tags["training_id"] == "a" * 32
    assert tags["dirty"] == "True"
    assert tags["evaluate.batch_size"] == "10"
    assert tags["version.torch"] == "1"
    assert "dvc_experiment" not in tags
    assert tags["model_sha256"] == sha256(results / "train" / "model.safetensors")
    files = seen["files"]
    assert isinstance(files, dict)
    assert files == {
        "code.patch": files["code.patch"],
        "params.yaml": files["params.yaml"],
        **{str(path.relative_to(results)): sha256(path) for path in results.rglob("*.*")},
    }
    inputs = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs}
    assert inputs == {("drawn train", "d" * 32), ("drawn test", "e" * 32)}
    assert len(run.inputs.dataset_inputs) == 2
    assert tags["mlflow.note.content"] == (
        "A dropout LSTM (2 layers of 16 units, dropout 0.5) on drawn, a pixel row at a time. "
        "1,000 steps of 128 out of 10 images, learning rate 0.01, seed 0, on cpu with 2 "
        "threads in float32. Made by commit cccccccccc, with changes that are in code.patch."
    )


def test_a_lost_run_is_made_again_from_its_files(
    store: Store, results: Path, tmp_path: Path
) -> None:
    run = show(store, results)
    first = contents(store, run, tmp_path / "first")
    store.client.delete_run(run.info.run_id)
    assert contents(store, show(store, results), tmp_path / "second") == first


def test_a_half_logged_run_is_completed(store: Store, results: Path) -> None:
    begun = TrackedRun(store, about())
    begun.log_trainer("here")
    begun.log_rows(ROWS[:1], TIMINGS[:1])
    (run,) = runs(store)
    assert run.info.status == "RUNNING"
    assert run.data.tags["trainer"] == "here"
    assert run.data.metrics["test_accuracy"] == ROWS[0]["test_accuracy"]
    run = show(store, results)
    assert run.info.run_id == begun.id
    assert run.info.status == "FINISHED"
    assert "trainer" not in run.data.tags
    history = store.client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [metric.step for metric in history] == [50, 100, 100]


def test_missing_parts_are_named_and_added(store: Store, results: Path, tmp_path: Path) -> None:
    run = show(store, results)
    whole = contents(store, run, tmp_path / "whole")
    (output,) = run.outputs.model_outputs
    location = store.client.get_logged_model(output.model_id).artifact_location
    shutil.rmtree(location.removeprefix("file://"))
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    (artifacts / "train" / "curve.csv").unlink()
    accuracy = (artifacts / "evaluate" / "metrics.json").read_text()
    (artifacts / "evaluate" / "metrics.json").write_text(accuracy.replace("0.1", "0.2"))
    store.client.delete_tag(run.info.run_id, "dataset")
    store.client.set_terminated(run.info.run_id, "FAILED")

    (run,) = runs(store)
    assert differences(store, run, read(results)).lines() == [
        "its tag dataset is not 'drawn'",
        "its artifact train/curve.csv is missing or differs",
        "its artifact evaluate/metrics.json is missing or differs",
        "its model is missing",
        "its state or its end time differs",
    ]
    again = show(store, results)
    assert contents(store, again, tmp_path / "again") == whole
    assert again.outputs.model_outputs[0].model_id == output.model_id
    assert project(store, read(results)) == []


def test_a_run_that_contradicts_its_files_is_made_again(
    store: Store, results: Path, tmp_path: Path
) -> None:
    run = show(store, results)
    whole = contents(store, run, tmp_path / "whole")
    store.client.log_batch(run.info.run_id, [Metric("test_accuracy", 0.9999, 1767323190000, 150)])
    assert project(store, read(results)) == ["its test_accuracy has points that its training lacks"]
    (again,) = runs(store)
    assert again.info.run_id != run.info.run_id
    assert contents(store, again, tmp_path / "again") == whole


def test_notes_that_people_write_about_a_run_stay(store: Store, results: Path) -> None:
    run = show(store, results)
    store.client.set_tag(run.info.run_id, "mlflow.note.content", "the good one")
    store.client.update_run(run.info.run_id, name="good")
    assert project(store, read(results)) == []
    run = show(store, results)
    assert (run.info.run_name, run.data.tags["mlflow.note.content"]) == ("good", "the good one")


def test_a_new_evaluation_is_added_after_the_earlier_one(
    store: Store, results: Path, tmp_path: Path
) -> None:
    show(store, results)
    later = tmp_path / "later"
    write_json(later / "metrics.json", {"test": {"accuracy": 0.3}})
    evaluated(later, "2026-01-02T05:00:00+00:00", batch_size=20)
    # both, the later one, and what is earlier than the store has it
    for folders in ([later, results / "evaluate"], [later], [results / "evaluate"]):
        project(store, View.read(results / "train", folders))
        (run,) = runs(store)
        assert run.data.metrics["test_accuracy"] == 0.3
        assert run.data.tags["evaluate.batch_size"] == "20"
        assert differences(store, run, View.read(results / "train", folders)).lines() == []
        history = store.client.get_metric_history(run.info.run_id, "test_accuracy")
        assert [metric.value for metric in history][-2:] == [0.1, 0.3]


def test_two_trainings_of_one_fingerprint_are_two_runs(store: Store) -> None:
    one, two = TrackedRun(store, about("1" * 32)), TrackedRun(store, about("2" * 32))
    assert one.id != two.id
    assert TrackedRun(store, about("1" * 32)).id == one.id


def test_a_training_without_an_evaluation_is_shown(store: Store, results: Path) -> None:
    project(store, View.read(results / "train"))
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    assert "when_trained_test_loss" not in run.data.metrics
    (model,) = models(store, "metrics.test_accuracy > 0.1", "drawn test")
    assert [each.step for each in model.metrics or [] if each.key == "test_accuracy"] == [100]


def test_an_evaluation_that_agrees_with_the_curve_adds_no_point(
    store: Store, results: Path
) -> None:
    metrics = {"test": {"accuracy": ROWS[1]["test_accuracy"], "loss": 0.2}}
    write_json(results / "evaluate" / "metrics.json", metrics)
    run = show(store, results)
    history = store.client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [metric.step for metric in history] == [50, 100]
    assert models(store, "metrics.test_accuracy > 0.1", "drawn test")
    assert project(store, read(results)) == []


def models(store: Store, condition: str, dataset: str, digest: str = "") -> list[LoggedModel]:
    """What a user finds by a condition on a metric that was measured on a data set."""
    on = {"dataset_name": dataset} | ({"dataset_digest": digest} if digest else {})
    mlflow.set_tracking_uri(store.uri)  # also sets MLFLOW_TRACKING_URI, for all later tests
    try:
        found: list[LoggedModel] = mlflow.search_logged_models(
            experiment_ids=[store.experiment_id],
            filter_string=condition,
            datasets=[on],
            output_format="list",
        )
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # "" would be a folder
    return found


def test_a_model_is_found_by_a_metric_and_the_data_set_it_was_measured_on(
    root: Path, results: Path, fresh_store: Path, tmp_path: Path
) -> None:
    def found() -> list[tuple[object, ...]]:
        store = open_store(root)
        project(store, read(results))
        assert models(store, "metrics.test_accuracy > 0.1", "drawn test") == []
        assert models(store, "metrics.test_accuracy = 0.1", "drawn train") == []
        digest = about().data["test"].sha256[:32]
        (model,) = models(store, "metrics.test_accuracy = 0.1", "drawn test", digest)
        measured = {
            (each.key, each.step, each.timestamp, each.value, each.dataset_name)
            for each in model.metrics or []
        }
        return model.name, model.model_type, model.params, model.tags, measured

    first = found()
    assert first[:2] == ("drawn", "LSTM")
    assert first[2] == {key: str(value) for key, value in flatten(about().params).items()}
    assert first[3] == {
        "dataset": "drawn",
        "model_sha256": sha256(results / "train" / "model.safetensors"),
        NOTE: "A dropout LSTM (2 layers of 16 units, dropout 0.5) on drawn, a pixel row at a time. "
        "1,000 steps of 128 out of 10 images, learning rate 0.01, seed 0, on cpu with 2 "
        "threads in float32. Made by commit cccccccccc, with changes that are in code.patch. It "
        "takes pixels from 0 to 255, of shape (N, 2, 8), and returns probabilities.",
    }
    last = (100, 1767323140000)
    assert first[4] == {
        ("train_accuracy", *last, 0.5, "drawn train"),
        ("train_loss", *last, 0.01, "drawn train"),
        ("test_accuracy", 100, 1767326400000, 0.1, "drawn test"),
        ("when_trained_test_loss", 0, 1767326400000, 0.2, "drawn test"),
    }
    shutil.copy(fresh_store, root)  # the store is lost
    shutil.rmtree(root / "mlruns")
    assert found() == first


@pytest.mark.parametrize("key", ["trained/test/accuracy", "test_loss"])
def test_a_run_of_an_earlier_version_is_made_again(
    store: Store, results: Path, tmp_path: Path, key: str
) -> None:
    run = show(store, results)
    whole = contents(store, run, tmp_path / "whole")
    (model,) = store.client.search_logged_models([store.experiment_id])
    store.client.log_batch(run.info.run_id, [Metric(key, 0.1, 1767326400000, 100)])
    store.client.set_tag(run.info.run_id, NOTE, "the good one")
    line = f"its {key} is from an earlier version of this project"
    assert project(store, read(results)) == [line]
    (again,) = runs(store)
    assert again.data.tags[NOTE] == "the good one"
    store.client.set_tag(again.info.run_id, NOTE, run.data.tags[NOTE])
    assert contents(store, runs(store)[0], tmp_path / "again") == whole
    (only,) = store.client.search_logged_models([store.experiment_id])
    assert only.model_id != model.model_id
    assert project(store, read(results)) == []


def test_a_model_that_lacks_its_metrics_gets_them(
    store: Store, results: Path, tmp_path: Path
) -> None:
    project(store, View.read(results / "train"))
    (run,) = runs(store)
    assert differences(store, run, read(results)).lines()[-1] == (
        "its model lacks test_accuracy, when_trained_test_loss"
    )
    project(store, read(results))
    assert len(models(store, "metrics.when_trained_test_loss = 0.2", "drawn test")) == 1


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_logged_model_answers_as_ours_without_pickle(
    store: Store, results: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    show(store, results)
    (found,) = store.client.search_logged_models([store.experiment_id])
    assert found.status == "READY"
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loaded = mlflow.pyfunc.load_model(found.artifact_location)
    pixels = drawn(batch, seed=0, rows=2).pixels
    answer = torch.from_numpy(loaded.predict(pixels.numpy()))
    ours = Classifier(RowLSTM.load(results / "train" / "model.safetensors")).eval()(pixels)
    torch.testing.assert_close(answer, ours, rtol=0, atol=1e-6)


def test_default_is_never_used(store: Store, results: Path) -> None:
    show(store, results)
    assert store.client.search_runs(["0"], run_view_type=ViewType.ALL) == []
    assert store.client.search_logged_models(["0"]) == []


def with_rows(results: Path, rows: list[Row], times: Sequence[str]) -> Path:
    """The results of a training with other rows and other times of them."""
    timings = [
        timing | {"time": f"2026-01-02T{time}+00:00"}
        for timing, time in zip(TIMINGS, times, strict=True)
    ]
    record = about().finished(timings[-1]["time"], sha256(results / "train" / "model.safetensors"))
    Training(record, rows, timings).write(results / "train")
    return results


def test_a_clock_that_was_set_back_changes_no_value(
    store: Store, results: Path, tmp_path: Path
) -> None:
    """In files of an earlier version: in those of this one, no time is before an earlier one."""
    with_rows(results, ROWS, ["03:04:50", "02:00:00"])
    evaluated(results / "evaluate", "2026-01-02T01:00:00+00:00", batch_size=10)
    run = show(store, results)
    assert project(store, read(results)) == []
    histories = contents(store, run, tmp_path / "seen")["metrics"]
    assert isinstance(histories, dict)
    assert run.data.metrics["train_loss"] == ROWS[1]["train_loss"]
    assert models(store, f"metrics.train_loss = {ROWS[1]['train_loss']}", "drawn train")
    assert sorted(value for _, _, value in histories["train_loss"]) == [0.01, 0.02]

    again = tmp_path / "again"
    write_json(again / "metrics.json", {"test": {"accuracy": 0.3, "loss": 0.4}})
    evaluated(again, "2026-01-02T01:00:01+00:00", batch_size=20)
    both = View.read(results / "train", [again, results / "evaluate"])
    project(store, both)
    assert project(store, both) == []
    (run,) = runs(store)
    assert run.data.metrics["test_accuracy"] == 0.3
    assert run.data.metrics["when_trained_test_loss"] == 0.4
    history = store.client.get_metric_history(run.info.run_id, "when_trained_test_loss")
    assert [metric.value for metric in history] == [0.2, 0.4]


def test_a_run_is_not_killed_before_it_started(store: Store) -> None:
    tracked = TrackedRun(store, about())
    tracked.log_rows(ROWS[:1], [TIMINGS[0] | {"time": "2026-01-02T02:00:00+00:00"}])
    mark_killed(store, runs(store)[0])
    (run,) = runs(store)
    assert (run.info.status, run.info.end_time) == ("KILLED", run.info.start_time)


def test_rows_that_were_measured_again_are_not_there_twice(store: Store, results: Path) -> None:
    """As after a damaged checkpoint: the training went on from the one before it."""
    first = TrackedRun(store, about())
    first.log_rows(ROWS, TIMINGS)
    with_rows(results, ROWS, ["03:04:50", "03:09:00"])
    lines = project(store, read(results))
    assert "its test_accuracy has points that its training lacks" in lines
    assert project(store, read(results)) == []
    (run,) = runs(store)
    for key in ("train_loss", "system/peak_memory_usage_megabytes"):
        history = store.client.get_metric_history(run.info.run_id, key)
        assert [metric.step for metric in history] == [50, 100], key


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_no_contradiction(
    store: Store, results: Path, loss: float
) -> None:
    with_rows(results, [ROWS[0] | {"train_loss": loss}, ROWS[1]], ["03:04:50", "03:05:40"])
    write_json(results / "evaluate" / "metrics.json", {"test": {"accuracy": 0.1, "loss": loss}})
    run = show(store, results)
    assert project(store, read(results)) == []
    assert runs(store)[0].info.run_id == run.info.run_id


def test_another_value_in_place_of_one_of_the_files_is_a_contradiction(
    store: Store, results: Path
) -> None:
    run = show(store, results)
    key = "when_trained_test_loss"
    store.client.log_batch(run.info.run_id, [Metric(key, 0.9, 1767326400000, 0)])
    assert project(store, read(results)) == [f"its {key} has points that its training lacks"]
    (again,) = runs(store)
    assert again.info.run_id != run.info.run_id
    assert again.data.metrics[key] == 0.2
