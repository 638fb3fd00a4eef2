"""Runs as MLflow has them: find, read, close and delete them, whatever they show."""

import tempfile
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Metric, ViewType

from mnist_lstm.tracking.logged_model import models_of
from mnist_lstm.tracking.store import Store, all_pages
from mnist_lstm.tracking.view import Point

StoredRun = mlflow.entities.Run  # a run as MLflow returns it

TRAINER = "trainer"  # a tag that a run has while it trains
GROUP = "group"  # a tag of a parent run, which is no training: what its children have in common


def runs(store: Store, condition: str = "") -> list[StoredRun]:
    """The runs of trainings that meet an MLflow filter, the earliest first."""
    return [run for run in all_runs(store, condition) if GROUP not in run.data.tags]


def all_runs(store: Store, condition: str = "") -> list[StoredRun]:
    """The runs of the experiment that meet an MLflow filter, parents too, the earliest first."""
    return all_pages(
        lambda token: store.client.search_runs(
            [store.experiment_id],
            condition,
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["start_time"],
            page_token=token,
        )
    )


def close(store: Store, run: StoredRun, status: str, ended: int) -> None:
    """Set a run's state and its end, in milliseconds."""
    if TRAINER in run.data.tags:
        store.client.delete_tag(run.info.run_id, TRAINER)
    store.client.set_terminated(run.info.run_id, status, ended)


def mark_killed(store: Store, run: StoredRun) -> None:
    """Mark a run as killed, at the time of its last metric. Raises TrackingError."""
    with store.errors():
        times = [run.info.start_time, *(metric.timestamp for metric in metrics(store, run))]
        close(store, run, "KILLED", max(times))


def delete(store: Store, run: StoredRun) -> None:
    """Delete a run, in the same way as MLflow's UI, with its models. Raises TrackingError.

    A model of which there is a registered version stays, because the version loads it.
    """
    with store.errors():
        run_id = run.info.run_id
        versions = store.client.search_model_versions(f"run_id = '{run_id}'")
        kept = {str(version.source).removeprefix("models:/") for version in versions}
        for model in models_of(store, run_id):
            if model.model_id not in kept:
                store.client.delete_logged_model(model.model_id)
        store.client.delete_run(run_id)


def metrics(store: Store, run: StoredRun) -> list[Metric]:
    """All points of all metrics of a run."""
    histories = (store.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return [metric for history in histories for metric in history]


def point_of(metric: Metric) -> Point:
    """Which point of a run a metric is, without its value."""
    return metric.key, metric.step, metric.timestamp


def artifact(store: Store, run: StoredRun, path: str) -> bytes | None:
    """The content of an artifact of a run; None if the run has no artifact at this path."""
    if path not in sizes(store, run, {str(Path(path).parent)}):
        return None
    return downloaded(store, run, path)


# by the address of the artifacts: the client would look up the run and its models for each file
def sizes(store: Store, run: StoredRun, folders: set[str]) -> dict[str, int | None]:
    """The sizes of a run's artifacts in these folders, in bytes, by path."""
    return {
        str(Path(folder, Path(file.path).name)): file.file_size
        for folder in folders
        for file in list_artifacts(f"{run.info.artifact_uri}/{folder}", tracking_uri=store.uri)
    }


def downloaded(store: Store, run: StoredRun, path: str) -> bytes:
    """The content of an artifact of a run."""
    address = f"{run.info.artifact_uri}/{path}"
    # each in a folder of its own: MLflow cannot write one file over another that is read-only
    with tempfile.TemporaryDirectory() as scratch:
        file = download_artifacts(address, dst_path=scratch, tracking_uri=store.uri)
        return Path(file).read_bytes()
