"""One run of the whole pipeline: its output, its files and its run in MLflow."""

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load
from workspace import Workspace, stages_run

from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.pipeline.result_files import read_rows
from mnist_lstm.tracking.store import open_store


def test_the_stages_print_what_they_do(baseline: Workspace) -> None:
    printed = (baseline.folder / "printed.txt").read_text()
    assert stages_run(printed) == ["fetch", "preprocess", "train", "evaluate"]
    assert "20 steps of 32 of 1,200 images, in float32 on the CPU (" in printed
    (last,) = read_rows(baseline.folder / "results" / "train" / "curve.csv")[-1:]
    line = f"Iter0, step 20, train-test {last['train_accuracy']:g}-{last['test_accuracy']:g}\n"
    assert line in printed
    assert f"test accuracy {last['test_accuracy']:.2%}: " in printed
    assert "published script" not in printed  # the script's accuracy is for another data set
    assert "Warning" not in printed


def test_the_run_is_one_and_equals_the_curve(baseline: Workspace) -> None:
    (run,) = baseline.runs()
    assert run.info.status == "FINISHED"
    client = open_store(baseline.folder).client
    curve = read_rows(baseline.folder / "results" / "train" / "curve.csv")
    assert [row["step"] for row in curve] == [10, 20]
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy", "train_loss"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [(m.step, m.value) for m in history] == [(row["step"], row[name]) for row in curve]


def test_final_values_are_those_of_the_metrics_and_of_the_curve(baseline: Workspace) -> None:
    (run,) = baseline.runs()
    metrics = baseline.json("results/evaluate/metrics.json")
    (last,) = read_rows(baseline.folder / "results" / "train" / "curve.csv")[-1:]
    for split in ("validation", "test"):
        for key, figure in (
            (f"{split}_accuracy", "accuracy"),
            (f"when_trained_{split}_loss", "loss"),
        ):
            assert run.data.metrics[key] == metrics[split][figure]
        assert metrics[split]["accuracy"] == last[f"{split}_accuracy"]


def test_predictions_are_those_the_metrics_count(baseline: Workspace) -> None:
    rows = read_rows(baseline.folder / "results" / "evaluate" / "predictions.csv")
    assert list(rows[0]) == ["split", "index", "actual", "predicted", "probability"]
    test = [row for row in rows if row["split"] == "test"]
    assert [row["index"] for row in test] == list(range(360))
    assert len(rows) == 360 + 237
    right = sum(row["actual"] == row["predicted"] for row in test)
    assert right / 360 == baseline.json("results/evaluate/metrics.json")["test"]["accuracy"]
    assert all(0.1 <= row["probability"] <= 1 for row in rows)


def test_classes_are_those_of_the_predictions(baseline: Workspace) -> None:
    classes = read_rows(baseline.folder / "results" / "evaluate" / "classes.csv")
    assert [row["class"] for row in classes] == list("0123456789")
    predictions = read_rows(baseline.folder / "results" / "evaluate" / "predictions.csv")
    test = [row for row in predictions if row["split"] == "test"]
    for label, row in enumerate(classes):
        own = [found for found in test if found["actual"] == label]
        right = sum(found["predicted"] == label for found in own)
        assert (row["images"], row["recall"]) == (len(own), right / len(own))


def test_reading_ends_in_the_accuracy_of_the_metrics(baseline: Workspace) -> None:
    rows = read_rows(baseline.folder / "results" / "evaluate" / "reading.csv")
    assert [row["rows"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    metrics = baseline.json("results/evaluate/metrics.json")
    for split in ("validation", "test"):
        assert rows[-1][f"{split}_accuracy"] == metrics[split]["accuracy"]


def test_params_tags_and_files_are_in_the_run(baseline: Workspace) -> None:
    (run,) = baseline.runs()
    about = baseline.json("results/train/run.json")
    params, tags = run.data.params, run.data.tags
    assert (params["model.hidden_size"], params["seed"], params["train.steps"]) == ("32", "0", "20")
    assert (params["fetch.dataset"], params["preprocess.validation_size"]) == ("digits", "237")
    for tag in ("training_id", "fingerprint", "model_sha256", "commit", "device"):
        assert tags[tag] == about[tag]
    assert about["commit"] == baseline.git("rev-parse", "HEAD~1").strip()
    assert tags["dirty"] == "False"
    assert "dvc_experiment" not in tags
    client = open_store(baseline.folder).client
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "train",
        "evaluate",
        "params.yaml",
    }
    kept = {f"results/{path}": content for path, content in _artifacts(baseline, run.info.run_id)}
    results = baseline.results()
    assert load(results.pop("results/train/best.safetensors")) == {}  # train.keep_best is false
    assert kept == results


def _artifacts(workspace: Workspace, run_id: str) -> list[tuple[str, bytes]]:
    folder = workspace.folder / "mlruns" / run_id / "artifacts"
    return [
        (str(path.relative_to(folder)), path.read_bytes())
        for stage in ("train", "evaluate")
        for path in (folder / stage).iterdir()
    ]


def test_the_logged_model_answers_as_ours_without_pickle(
    baseline: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    store = open_store(baseline.folder)
    (model,) = store.client.search_logged_models([store.experiment_id])
    theirs = mlflow.pyfunc.load_model(model.artifact_location)
    ours = Classifier(RowLSTM.load(baseline.folder / "results" / "train" / "model.safetensors"))
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 8, 8), dtype=np.uint8)
    for batch in (1, 7, 1000):
        answer = torch.from_numpy(theirs.predict(pixels[:batch]))
        expected = ours.eval()(torch.from_numpy(pixels[:batch]))
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)


def test_a_committed_workspace_is_clean_and_up_to_date(baseline: Workspace) -> None:
    assert baseline.git("status", "--porcelain", "--", ":!printed.txt") == ""
    assert "up to date" in baseline.dvc("status")
    tracked = baseline.git("ls-files", "results", "data").split()
    assert tracked == [
        "data/own/README.md",
        "data/published_curve.csv",
        "results/evaluate/classes.csv",
        "results/evaluate/metrics.json",
        "results/evaluate/predictions.csv",
        "results/evaluate/reading.csv",
        "results/train/curve.csv",
    ]
