"""A training of each other cell is stopped, continued, exported to MLflow and asked."""

from functools import partial
from pathlib import Path

import mlflow
import pytest
import torch
from learners import Learner
from samples import drawn
from tracked import ROWS, TIMINGS, about

from mnist_lstm.files import sha256
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.model import RowLSTM, infer
from mnist_lstm.pipeline.result_files import Training
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.view import View


@pytest.mark.parametrize(("cell", "optimizer"), [("gru", "sgd"), ("rnn", "rmsprop")])
def test_a_cell_is_the_same_after_a_kill_in_its_file_and_in_mlflow(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, cell: str, optimizer: str
) -> None:
    make = partial(Learner, steps=6, cell=cell, optimizer=optimizer)
    whole = make(seed=0)
    whole.run(0, 6)
    killed = make(seed=0)
    killed.run(0, 4)
    Checkpoint(root, "f").save(*killed.parts, {"step": 4})
    continued = make(seed=5)
    Checkpoint(root, "f").load(*continued.parts)
    continued.run(4, 6)
    train = root / "results" / "train"
    for learner, path in ((whole, root / "whole"), (continued, train / "model.safetensors")):
        learner.model.save(path)
    digest = sha256(root / "whole")
    assert sha256(train / "model.safetensors") == digest

    params = {**about().params, "model": about().params["model"] | {"cell": cell}}
    finished = about(params=params, image=(8, 8)).finished(TIMINGS[-1]["time"], digest)
    Training(finished, ROWS, TIMINGS).write(train)
    project(store, View.read(train))
    (run,) = runs(store)
    assert run.data.tags["mlflow.note.content"].startswith(f"A dropout {cell.upper()} (")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loaded = mlflow.pyfunc.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    pixels = drawn(7, seed=3).pixels
    answers = torch.from_numpy(loaded.predict(pixels.numpy()))
    expected = infer(RowLSTM.load(train / "model.safetensors"), pixels, 7).softmax(dim=1)
    torch.testing.assert_close(answers, expected, rtol=0, atol=1e-6)
