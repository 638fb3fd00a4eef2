import json
from dataclasses import replace
from pathlib import Path

import torch
from samples import BEGUN, small_model
from test_errors import ordinary_user
from test_history import curve, moment

from mnist_lstm.data.sequences import Batches
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.pipeline.result_files import Training
from mnist_lstm.runs.unfinished import is_held, unfinished

# of checkpoints: too deep, without a key, with other types
HEADERS = [
    b'{"__metadata__":' + b"[" * 10**5,
    b"[]",
    b"{}",
    b'{"__metadata__": []}',
    *(
        json.dumps({"__metadata__": {"checkpoint": json.dumps(state)}}).encode()
        for state in (
            [],
            {"step": 1, "seconds": 1.0, "record": []},
            {"step": 1, "seconds": 1.0, "record": {"about": BEGUN.as_json(), "rows": [1]}},
            {"step": "1e9", "record": Training(BEGUN).as_state(), "seconds": 1},
            {"step": 1, "record": Training(BEGUN).as_state(), "seconds": None},
            {"record": Training(BEGUN).as_state(), "seconds": 1.0},
            {"step": 1, "seconds": 1.0, "record": Training(BEGUN, [{"step": 1}]).as_state()},
        )
    ),
]


def test_a_lock_of_another_user_counts_as_held(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    lock.touch(0o600)
    assert not is_held(lock)
    lock.chmod(0)
    with ordinary_user():
        assert is_held(lock)


def saved(folder: Path, step: int) -> Checkpoint:
    model, checkpoint = small_model(), Checkpoint(folder, f"print-{step}")
    adam = torch.optim.Adam(model.parameters())
    training = Training(
        replace(BEGUN, started=moment(chr(100 + step // 10))),
        [curve("a") | {"step": step}],
        [{"step": step, "time": moment("a"), "seconds": step / 10}],
    )
    state = {"step": step, "seconds": step / 10, "record": training.as_state()}
    checkpoint.save(model, adam, Batches(10, 5, torch.Generator()), state)
    return checkpoint


def test_checkpoints_tell_how_far_a_training_is_and_whether_it_goes_on(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    with saved(tmp_path, 70).held(lambda _: None):
        stopped, training = unfinished(tmp_path)
    assert (stopped.progress.step, stopped.progress.seconds, stopped.at_work) == (5, 0.5, False)
    assert (training.progress.step, training.at_work) == (70, True)
    assert training.record.name == "drawn"
    assert training.rows == [curve("a") | {"step": 70}]
    assert not unfinished(tmp_path)[1].at_work


def test_what_is_no_checkpoint_is_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, 5).path
    for content in (b"", b"short", path.read_bytes()[:100], (8 * b"\xff") + b"{}"):
        path.write_bytes(content)
        assert unfinished(tmp_path) == []
    for header in HEADERS:
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert unfinished(tmp_path) == []
    assert unfinished(tmp_path / "none") == []
