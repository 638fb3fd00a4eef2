"""Make the MLflow run of a training from the training's files, and keep it equal to them.

Each training has one run, which is found by the training_id. Logging the same files twice changes
nothing, and an incomplete run is completed.
"""

from collections.abc import Callable, Mapping, Sequence

from mnist_lstm.pipeline.result_files import Training
from mnist_lstm.tracking.differences import (
    ARTIFACTS,
    EDITABLE,
    PRUNED,
    differences,
    lacks_of_pruned,
)
from mnist_lstm.tracking.overview import Overview
from mnist_lstm.tracking.run_name import run_name
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.stored_runs import StoredRun, delete, runs
from mnist_lstm.tracking.tracked_run import TrackedRun
from mnist_lstm.tracking.view import ShownModel, View


def project(store: Store, view: View, overview: Overview | None = None) -> list[str]:
    """Make the run of a training equal to its files; returns a line for each difference.

    A run that contradicts the files is deleted, in the same way as by MLflow's UI, and created
    again. Of several runs of the training, one is kept. Raises TrackingError, and UserError without
    any change of the run if a model that it lacks cannot be loaded.
    """
    with store.errors():
        found = runs(store, f"tags.training_id = '{view.about.training_id}'")
        if len(found) > 1:
            return _without_others(store, found, view) + project(store, view, overview)
        if not found:
            lines, models = ["it has no run"], view.models
        else:
            lacks = differences(store, found[0], view, overview)
            lines = lacks.lines()
            if not lines:
                if lacks.artifacts:  # an earlier version of this project has logged them
                    store.client.set_tag(found[0].info.run_id, ARTIFACTS, lacks.artifacts)
                return []
            models = view.models if lacks.contradictions else lacks.models
        _check(view, models)
        if found and lacks.contradictions:
            delete(store, found[0])
        run = TrackedRun(store, view.about)
        if found and lacks.contradictions:
            _keep_edits(store, found[0], run.id, view)
        run.complete(view, differences(store, store.client.get_run(run.id), view))
        return lines


def _check(view: View, models: Sequence[ShownModel]) -> None:
    """Raises UserError if one of the models cannot be loaded."""
    if models:
        # imports torch, which a run that has its models does not need
        from mnist_lstm.tracking.exported_model import model_of

        for shown in models:
            model_of(view, shown)


def _without_others(store: Store, found: Sequence[StoredRun], view: View) -> list[str]:
    """Delete all runs of a training but the one that fits its files best; a line for each."""
    _, *others = sorted(found, key=lambda run: len(differences(store, run, view).lines()))
    for run in others:
        delete(store, run)
    return [second_run(run) for run in others]


def second_run(run: StoredRun) -> str:
    """The line for a run of a training that has another one."""
    return f"it has a second run, {run.info.run_id}"


def project_pruned(
    store: Store, training: Training, status: str, why: str, overview: Overview | None = None
) -> list[str]:
    """Make the run of a training that a search ended early, with all that it showed.

    Returns a line for each thing that the run lacked. Raises TrackingError.
    """
    lines = lacks_of_pruned(store, training, why, overview)
    if lines:
        run = TrackedRun(store, training.about)
        run.log_rows(training.rows, training.timings)
        timings = training.timings
        run.finish(
            status, training.about, timings[-1]["time"] if timings else training.about.started
        )
        with store.errors():
            store.client.set_tag(run.id, PRUNED, why)
    return lines


def mark_pruned(
    store: Store, experiment: str, why: str, is_own: Callable[[Mapping[str, str]], bool]
) -> None:
    """Tag the run of a DVC experiment with why a search ended it. Raises TrackingError.

    Another clone may have an experiment of this name: `is_own` says by its tags whether a run is of
    this one.
    """
    with store.errors():
        for run in runs(store, f"tags.dvc_experiment = '{experiment}'"):
            if is_own(run.data.tags):
                store.client.set_tag(run.info.run_id, PRUNED, why)


def _keep_edits(store: Store, before: StoredRun, run_id: str, view: View) -> None:
    """Give the run that replaces another the name and the notes that people gave that one."""
    if before.info.run_name not in (view.about.name, run_name(store.root, view.about)):
        store.client.update_run(run_id, name=before.info.run_name)
    for key in EDITABLE:
        if (text := before.data.tags.get(key)) is not None:
            store.client.set_tag(run_id, key, text)
