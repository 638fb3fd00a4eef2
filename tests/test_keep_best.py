"""train.keep_best: the best model is kept beside the last one, which stays as it is."""

import shutil
from itertools import count
from pathlib import Path
from signal import SIGTERM

import pytest
from safetensors.torch import load
from samples import drawn, write_lock
from test_errors import PROJECT, Project, project
from test_faults import run

from mnist_lstm import cli
from mnist_lstm.pipeline import signals, stage
from mnist_lstm.pipeline.result_files import BEST, FinishedTraining
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs

__all__ = ["project"]  # the fixture

LAST = "model.safetensors"


@pytest.fixture
def prepared(project: Project) -> Project:
    """A project whose training of 60 steps is at its best before its end."""
    project.monkeypatch.setattr(stage, "code", lambda _: [])  # the project here has no src/
    shutil.copy(project.fresh_store, project.folder)
    project.raw()
    for number, split in enumerate(("train", "validation", "test")):
        sequences = project.folder / "data" / "sequences" / f"{split}.safetensors"
        drawn(200, seed=number).save(sequences)
    published = "data/published_curve.csv"
    shutil.copy(PROJECT / published, project.folder / published)
    for old, new in (
        ("steps: 1500", "steps: 60"),
        ("eval_every: 100", "eval_every: 10"),
        ("rate: 0.005", "rate: 0.001"),
        ("keep_best: false", "keep_best: true"),
    ):
        project.edit(old, new)
    return project


def trained(project: Project) -> tuple[FinishedTraining, dict[str, bytes]]:
    """Train; returns the records and the content of the two models."""
    run(project, "train")
    folder = project.folder / "results" / "train"
    contents = {name: (folder / name).read_bytes() for name in (BEST, LAST)}
    shutil.rmtree(project.folder / ".checkpoints")
    return FinishedTraining.read(folder), contents


def test_the_best_model_is_that_of_a_training_that_ends_there(prepared: Project) -> None:
    record, kept = trained(prepared)
    accuracies = [row["validation_accuracy"] for row in record.rows]
    first = accuracies.index(max(accuracies))
    assert record.best_step == record.rows[first]["step"] < record.step

    prepared.edit("keep_best: true", "keep_best: false")
    without, files = trained(prepared)
    assert without.rows == record.rows
    assert files[LAST] == kept[LAST]
    assert load(files[BEST]) == {}
    assert without.about.best_sha256 is None

    prepared.edit("keep_best: false", "keep_best: true")
    prepared.edit("steps: 60", f"steps: {record.best_step}")
    shorter, files = trained(prepared)
    assert files == {LAST: kept[BEST], BEST: kept[BEST]}
    assert shorter.about.best_sha256 == shorter.about.model_sha256 == record.about.best_sha256


@pytest.mark.parametrize("evaluations", [1, 5])
def test_a_training_that_was_stopped_has_the_same_best_model(
    prepared: Project, evaluations: int
) -> None:
    """It is stopped between evaluations: before the best one, and after it."""
    record, kept = trained(prepared)
    stop = 10 * evaluations + 3
    assert (stop > record.best_step) == (evaluations == 5)
    steps = count(1)
    prepared.monkeypatch.setattr(signals, "came", lambda: SIGTERM if next(steps) == stop else None)
    with pytest.raises(SystemExit):
        run(prepared, "train")
    assert f"saved at step {stop} of 60" in prepared.capsys.readouterr().err
    assert f"continues from step {stop} of 60" in run(prepared, "train")
    assert FinishedTraining.read(Path("results/train")).rows == record.rows
    assert {name: Path("results/train", name).read_bytes() for name in kept} == kept


def test_mlflow_has_both_models_also_after_its_store_was_lost(prepared: Project) -> None:
    run(prepared, "train")
    run(prepared, "evaluate")
    record = FinishedTraining.read(Path("results/train"))
    prepared.with_history(results=False)
    write_lock(prepared.folder)

    def shown() -> dict[str, tuple[object, ...]]:
        store = open_store(prepared.folder)
        (one,) = runs(store)
        steps = {output.model_id: output.step for output in one.outputs.model_outputs}
        found = store.client.search_logged_models([store.experiment_id])
        return {
            model.name.removeprefix(one.info.run_name): (
                steps[model.model_id],
                model.tags["model_sha256"],
                {
                    (each.key, each.value, each.dataset_name)
                    for each in model.metrics or []
                    if each.key in ("validation_accuracy", "test_accuracy")
                },
            )
            for model in found
        }

    def expected(step: int, digest: str | None) -> tuple[object, ...]:
        (row,) = [row for row in record.rows if row["step"] == step]
        return (
            step,
            digest,
            {
                (f"{split}_accuracy", row[f"{split}_accuracy"], f"drawn {split}")
                for split in ("validation", "test")
            },
        )

    both = shown()
    assert both == {
        "": expected(record.step, record.about.model_sha256),
        "-best": expected(record.best_step, record.about.best_sha256),
    }
    assert cli.main(["verify"]) == 0
    shutil.copy(prepared.fresh_store, prepared.folder)
    shutil.rmtree("mlruns")
    assert cli.main(["sync"]) == 0
    assert shown() == both
    assert cli.main(["verify"]) == 0
