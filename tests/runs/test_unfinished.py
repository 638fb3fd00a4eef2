from pathlib import Path

import torch
from samples import small_model
from tracked import ROWS, about

from mnist_lstm.data.sequences import Batches
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.runs.unfinished import unfinished


def saved(folder: Path, step: int) -> Checkpoint:
    model, checkpoint = small_model(), Checkpoint(folder, f"print-{step}")
    adam = torch.optim.Adam(model.parameters())
    record = {"about": about() | {"started": f"at {step}"}, "rows": ROWS, "timings": []}
    state = {"step": step, "seconds": step / 10, "record": record}
    checkpoint.save(model, adam, Batches(10, 5, torch.Generator()), state)
    return checkpoint


def test_checkpoints_tell_how_far_a_training_is_and_whether_it_goes_on(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    with saved(tmp_path, 70).held(lambda _: None):
        stopped, training = unfinished(tmp_path)
    assert (stopped.step, stopped.seconds, stopped.at_work) == (5, 0.5, False)
    assert (training.step, training.at_work) == (70, True)
    assert training.about["name"] == "drawn"
    assert training.rows == ROWS
    assert not unfinished(tmp_path)[1].at_work


def test_what_is_no_checkpoint_is_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, 5).path
    for content in (b"", b"short", path.read_bytes()[:100], (8 * b"\xff") + b"{}"):
        path.write_bytes(content)
        assert unfinished(tmp_path) == []
    assert unfinished(tmp_path / "none") == []
