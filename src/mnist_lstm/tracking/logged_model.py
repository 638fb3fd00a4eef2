"""Look up the models that MLflow has of runs, and what is measured on them."""

from collections.abc import Mapping
from pathlib import Path

import mlflow.artifacts
from mlflow.entities import FileInfo, LoggedModel, LoggedModelStatus, Metric, Run

from mnist_lstm.tracking.store import Store, is_server
from mnist_lstm.tracking.view import MeasuredOn, Point, ShownModel, View

EARLIER_NAME = "model"  # in earlier versions, the models of all runs were called so


def logged_model(store: Store, run_id: str, model_sha256: str) -> LoggedModel | None:
    """The logged model of a run; None if there is none. An interruption may leave it incomplete."""
    found = models_of(store, run_id, f" AND tags.model_sha256 = '{model_sha256}'")
    return found[0] if found else None


def models_of(store: Store, run_id: str, condition: str = "") -> list[LoggedModel]:
    """The logged models of a run: the last one, and the best one if that was kept."""
    condition = f"source_run_id = '{run_id}'{condition}"
    return list(store.client.search_logged_models([store.experiment_id], condition))


def links(logged: LoggedModel | None, shown: ShownModel) -> dict[Point, MeasuredOn]:
    """The points of a model that its logged model lacks, each with its data set."""
    metrics = logged.metrics if logged else None
    there = {
        ((metric.key, metric.step, metric.timestamp), (metric.dataset_name, metric.dataset_digest))
        for metric in metrics or []
    }
    return {point: on for point, on in shown.measured.items() if (point, on) not in there}


def log_links(
    store: Store,
    run_id: str,
    view: View,
    shown: ShownModel,
    missing: Mapping[Point, MeasuredOn],
) -> None:
    """Log points of a run's metrics for one of its logged models and their data sets, too."""
    logged = logged_model(store, run_id, shown.sha256)
    if logged:
        batch = [
            Metric(
                *(key, view.points[key, step, at], at, step),
                model_id=logged.model_id,
                dataset_name=name,
                dataset_digest=digest,
                run_id=run_id,
            )
            for (key, step, at), (name, digest) in missing.items()
        ]
        store.client.log_batch(run_id, batch)


def model_ids(run: Run) -> set[str]:
    """The ids of the logged models that a run lists as its outputs."""
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def has_model(store: Store, run: Run, logged: LoggedModel | None) -> bool:
    """Whether a run has this logged model, and has it complete."""
    if not logged or logged.model_id not in model_ids(run):
        return False
    # on a server, a request is saved: MLmodel was uploaded before the model was marked as ready
    wanted = {"data": "model.pt2"} | ({} if is_server(store.uri) else {"": "MLmodel"})
    return logged.status == LoggedModelStatus.READY and all(
        name in {Path(file.path).name for file in _listed(store, logged, folder)}
        for folder, name in wanted.items()
    )


def _listed(store: Store, logged: LoggedModel, folder: str) -> list[FileInfo]:
    # by its address: the client would look up the model first
    address = f"{logged.artifact_location}/{folder}".rstrip("/")
    return list(mlflow.artifacts.list_artifacts(address, tracking_uri=store.uri))
