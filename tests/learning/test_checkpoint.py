import multiprocessing
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from learners import Learner
from mutations import DAMAGE, Damage, damaged, few_or_many, fuzz, memory
from safetensors.torch import load, save

from mnist_lstm import UserError
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.optimizer import averaged
from mnist_lstm.learning.training_state import Damaged, State, capture, read


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 3, 4, 10])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path, stop: int, beyond: bool) -> None:
    whole = Learner(seed=0, beyond=beyond)
    curve = whole.run(0, 10)
    assert [evaluation.step for evaluation in curve] == [3, 6, 9, 10]

    stopped, checkpoint = Learner(seed=0, beyond=beyond), Checkpoint(tmp_path, "f")
    first = stopped.run(0, stop)
    checkpoint.save(*stopped.parts, {"step": stop})
    other = Learner(seed=5, beyond=beyond)  # nothing of its seed must be left
    assert Checkpoint(tmp_path, "f").load(*other.parts) == {"step": stop}

    assert first + other.run(stop, 10) == curve
    there, expected = capture(*other.parts), capture(*whole.parts)
    assert there.keys() == expected.keys()
    assert all(torch.equal(there[name], expected[name]) for name in expected)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_each_cell_and_optimizer_goes_on_bit_for_bit(
    tmp_path: Path, cell: str, optimizer: str, beyond: bool
) -> None:
    make = partial(Learner, cell=cell, optimizer=optimizer, beyond=beyond)
    whole = make(seed=0)
    curve = whole.run(0, 10)
    stopped, checkpoint = make(seed=0), Checkpoint(tmp_path, "f")
    first = stopped.run(0, 4)
    checkpoint.save(*stopped.parts, {"step": 4})
    other = make(seed=5)
    assert checkpoint.load(*other.parts) == {"step": 4}
    assert first + other.run(4, 10) == curve
    assert torch.equal(other.weights(), whole.weights())


def test_a_checkpoint_is_found_by_its_fingerprint_alone(tmp_path: Path) -> None:
    training, one, other = Learner(0), Checkpoint(tmp_path, "one"), Checkpoint(tmp_path, "other")
    assert one.load(*training.parts) is None
    one.save(*training.parts, {"step": 1})
    one.save(*training.parts, {"step": 2})
    assert one.load(*training.parts) == {"step": 2}
    assert other.load(*training.parts) is None
    assert one.remove()
    assert one.load(*training.parts) is None
    assert one.remove()  # there is nothing left to do


ROOM = 2**24  # bytes


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint after some steps."""
    training, checkpoint = Learner(seed=0), Checkpoint(tmp_path_factory.mktemp("content"), "f")
    training.run(0, 4)
    checkpoint.save(*training.parts, {"step": 4})
    return checkpoint.path.read_bytes()


@pytest.fixture
def checkpoint(tmp_path: Path, content: bytes) -> Checkpoint:
    checkpoint = Checkpoint(tmp_path, "f")
    checkpoint.folder.mkdir()
    checkpoint.path.write_bytes(content)
    return checkpoint


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content + b"\0", "damaged"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "its SHA-256 is not the one"),
        (lambda content: content.replace(b'\\"step\\": 4', b'\\"step\\": 5'), "its SHA-256"),
        (lambda content: save(load(content)), "its SHA-256 is not the one"),
        (lambda content: (2**40).to_bytes(8, "little") + content[8:], "damaged"),
    ],
)
def test_damage_is_recognised_and_changes_nothing(
    checkpoint: Checkpoint, content: bytes, damage: object, reason: str
) -> None:
    damaged = damage(content)
    assert damaged != content
    checkpoint.path.write_bytes(damaged)
    training = Learner(seed=3)
    before = capture(*training.parts)
    with pytest.raises(Damaged, match=reason) as error:
        checkpoint.load(*training.parts)
    assert str(error.value).startswith(f"{checkpoint.path}: ")
    assert "\n" not in str(error.value)
    after = capture(*training.parts)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_checkpoint_that_the_training_cannot_use_changes_nothing(checkpoint: Checkpoint) -> None:
    def check(state: State) -> None:
        raise UserError(f"its record: seconds is missing beside {state.about}; it is damaged")

    training = Learner(seed=3)
    before = capture(*training.parts)
    with pytest.raises(Damaged) as error:
        checkpoint.load(*training.parts, check)
    about = "{'step': 4}"
    assert str(error.value) == (
        f"{checkpoint.path}: damaged (its record: seconds is missing beside {about})"
    )
    after = capture(*training.parts)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("beyond", [False, True])
def test_the_best_weights_are_those_that_were_evaluated(tmp_path: Path, beyond: bool) -> None:
    training, checkpoint = Learner(seed=0, beyond=beyond), Checkpoint(tmp_path, "f")
    training.run(0, 3)
    before = capture(*training.parts)
    training.learner.keep()
    after = capture(*training.parts)
    assert all(torch.equal(after[name], before[name]) for name in before)
    with averaged(training.optimizer):
        evaluated = {name: each.clone() for name, each in training.model.state_dict().items()}
    training.run(3, 7)
    checkpoint.save(*training.parts, {"step": 7}, best=training.learner.best)

    other = Learner(seed=5, beyond=beyond)
    assert checkpoint.load(*other.parts, best=other.learner.best) == {"step": 7}
    assert other.learner.best.keys() == evaluated.keys()
    assert all(torch.equal(other.learner.best[name], evaluated[name]) for name in evaluated)
    assert torch.equal(other.weights(), training.weights())


def test_best_weights_that_do_not_fit_are_refused(checkpoint: Checkpoint) -> None:
    training = Learner(seed=0)
    weights = {name: each.clone() for name, each in training.model.state_dict().items()}
    best = weights | {"head.bias": torch.zeros(3)}
    checkpoint.save(*training.parts, {}, best=best)
    with pytest.raises(Damaged, match=r"its best\.head\.bias is not that of this training"):
        checkpoint.load(*Learner(seed=3).parts)


def test_the_checkpoint_of_another_training_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(Damaged, match="the checkpoint of another training"):
        read(checkpoint.path, "another")
    with pytest.raises(Damaged, match=r"its model\.head\.bias is not that of this training"):
        checkpoint.load(*Learner(0, num_classes=3).parts)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[[1, 2]]", "5", "null", '"f"', "[" * 10**5])
def test_a_checkpoint_without_a_fingerprint_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The digest is right, but the content does not name a training."""
    monkeypatch.setattr("mnist_lstm.learning.checkpoint.json.dumps", lambda _: text)
    checkpoint.save(*Learner(seed=0).parts, {})
    with pytest.raises(Damaged, match="it does not say whose it is"):
        read(checkpoint.path, "f")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("batches.left", torch.tensor([40])),
        ("batches.left", torch.tensor([-1])),
        ("batches.left", torch.zeros(3)),
        ("rng", torch.zeros(5056, dtype=torch.uint8)),
        ("rng", torch.zeros(3, dtype=torch.uint8)),
        ("optimizer.0.exp_avg", torch.zeros(2)),
        ("optimizer.99.exp_avg", torch.zeros(2)),
        ("unknown", torch.zeros(2)),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, name: str, tensor: torch.Tensor
) -> None:
    """The digest is right: the checkpoint was saved with this state."""
    training = Learner(seed=0)
    training.run(0, 4)
    tensors = capture(*training.parts) | {name: tensor}
    monkeypatch.setattr("mnist_lstm.learning.training_state.live", lambda *_: tensors)
    checkpoint.save(*training.parts, {})
    monkeypatch.undo()
    with pytest.raises(Damaged, match=f"its {name} is not that of this training"):
        checkpoint.load(*Learner(seed=3).parts)


def test_a_newer_damaged_checkpoint_replaces_an_older_one(checkpoint: Checkpoint) -> None:
    for content in (b"old", b"new"):
        checkpoint.path.write_bytes(content)
        aside = checkpoint.set_aside()
    assert (aside.name, aside.read_bytes()) == ("checkpoint.damaged", b"new")
    assert checkpoint.load(*Learner(0).parts) is None


@few_or_many
def test_mutated_files_are_read_correctly_or_refused(
    checkpoint: Checkpoint, content: bytes, cases: int
) -> None:
    original, refused = load(content), dict[bytes, str]()

    @fuzz(cases)
    @given(DAMAGE)
    def check(damage: Damage) -> None:
        file = damaged(content, damage)
        checkpoint.path.write_bytes(file)
        try:
            with memory(ROOM):
                state = read(checkpoint.path, "f")
        except Damaged as refusal:
            refused[file] = str(refusal)
        else:
            assert state.about == {"step": 4}
            assert state.tensors.keys() == original.keys()
            assert all(torch.equal(state.tensors[name], original[name]) for name in original)

    check()
    assert len(refused) >= cases / 2
    assert content not in refused
    assert not any("\n" in line for line in refused.values())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_huge_claim_in_a_header_takes_no_memory(checkpoint: Checkpoint) -> None:
    claim = b'{"a":{"dtype":"F32","shape":[2147483648,64],"data_offsets":[0,549755813888]}}'
    checkpoint.path.write_bytes(len(claim).to_bytes(8, "little") + claim + bytes(1000))
    with pytest.raises(Damaged), memory(ROOM):
        read(checkpoint.path, "f")


def test_a_full_disk_leaves_the_last_checkpoint_whole(checkpoint: Checkpoint) -> None:
    training, before = Learner(seed=0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            checkpoint.save(*training.parts, {"step": 5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(checkpoint.path)
    assert checkpoint.load(*training.parts) == {"step": 4}
    assert sorted(checkpoint.folder.iterdir()) == [checkpoint.path, checkpoint.previous]


def test_the_checkpoint_before_a_damaged_one_is_still_there(checkpoint: Checkpoint) -> None:
    training = Learner(seed=0)
    training.run(0, 3)
    checkpoint.save(*training.parts, {"step": 3})
    at_3 = training.weights()
    training.run(3, 5)
    checkpoint.save(*training.parts, {"step": 5})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-1])
    with pytest.raises(Damaged):
        checkpoint.load(*training.parts)
    checkpoint.set_aside()
    other = Learner(seed=1)
    assert checkpoint.load(*other.parts) == {"step": 3}
    assert torch.equal(other.weights(), at_3)
    checkpoint.set_aside()
    assert checkpoint.load(*other.parts) is None


def test_damaged_checkpoints_are_set_aside_until_one_is_not(checkpoint: Checkpoint) -> None:
    training, said = Learner(seed=0), list[str]()
    for step in (3, 5):
        checkpoint.save(*training.parts, {"step": step})
    checkpoint.path.write_bytes(b"damaged")
    check = {"step": 3}.__eq__
    assert checkpoint.load_undamaged(*training.parts, check, said.append) == {"step": 3}
    (line,) = said
    assert "checkpoint.safetensors: damaged (" in line
    assert line.endswith("; renamed to checkpoint.damaged; the checkpoint before it is used")
    checkpoint.path.write_bytes(b"damaged")
    checkpoint.previous.unlink(missing_ok=True)
    assert checkpoint.load_undamaged(*training.parts, check, said.append) is None
    assert said[1].endswith("; renamed to checkpoint.damaged; the training starts over")


SHARE = 0.02  # of a training's time, as docs/promises.md says


def test_checkpoints_keep_to_their_share_of_the_time(tmp_path: Path) -> None:
    training, checkpoint = Learner(seed=0), Checkpoint(tmp_path, "f")
    assert checkpoint.is_due(0)  # what one costs is not known yet
    checkpoint.save(*training.parts, {})
    first = checkpoint.seconds
    assert first > 0
    assert not checkpoint.is_due(1.9 * first / SHARE)
    assert checkpoint.is_due(2.1 * first / SHARE)
    checkpoint.save(*training.parts, {})
    second = checkpoint.seconds - first
    assert not checkpoint.is_due((first + 1.9 * second) / SHARE)
    assert checkpoint.is_due((first + 2.1 * second) / SHARE)


FORKS = multiprocessing.get_context("forkserver")
# imported once for all holders, because PyTorch takes seconds
FORKS.set_forkserver_preload(["mnist_lstm.learning.checkpoint", "hypothesis", "pytest"])


def hold(folder: Path, answer: Connection) -> None:
    with Checkpoint(folder, "f").held(print):
        answer.send("held")
        time.sleep(600)


@contextmanager
def holder(folder: Path) -> Iterator[BaseProcess]:
    """A process that holds the lock of checkpoint f until it is killed."""
    answer, its_end = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=hold, args=(folder, its_end))
    process.start()
    its_end.close()
    try:
        assert answer.recv() == "held"
        yield process
    finally:
        process.kill()
        process.join()


class Waiting(threading.Thread):
    """Wait for the lock of checkpoint f too."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.checkpoint = Checkpoint(folder, "f")
        self.told: list[str] = []
        self.waits, self.holds = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.checkpoint.held(lambda text: (self.told.append(text), self.waits.set())):
            self.holds.set()
            self.lock = self.checkpoint.lock.read_text()


def test_a_second_trainer_is_told_of_the_first_and_waits_until_it_is_gone(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        waiting = Waiting(tmp_path)
        assert waiting.waits.wait(10)
        assert not waiting.holds.wait(0.2)
        process.kill()
        assert waiting.holds.wait(10)
        waiting.join()
    (told,) = waiting.told
    assert told.startswith(f"process {process.pid} in {Path.cwd()}, since ")
    assert waiting.lock.startswith(f"process {os.getpid()} in ")


def test_a_lock_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        waiting = Waiting(tmp_path)
        assert waiting.waits.wait(10)
        waiting.checkpoint.lock.unlink()
        process.kill()
        assert waiting.holds.wait(10)
        waiting.join()
    assert waiting.checkpoint.lock.read_text() == waiting.lock


def test_a_locked_checkpoint_is_not_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "f")
    with holder(tmp_path):
        assert not checkpoint.remove()
        assert checkpoint.lock.exists()
    assert checkpoint.remove()
    assert not checkpoint.folder.exists()


def test_a_kill_while_a_damaged_checkpoint_is_set_aside_loses_none(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "f")
    checkpoint.folder.mkdir()
    checkpoint.path.write_text("damaged")
    checkpoint.previous.write_text("good")
    checkpoint.path.replace(checkpoint.path.with_suffix(".damaged"))  # the first of two renames
    with checkpoint.held(print):
        assert checkpoint.path.read_text() == "good"


def test_on_nfs_a_folder_that_keeps_its_lock_counts_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS keeps a file that is open, under another name, and its folder with it."""
    for age, name in enumerate(("oldest", "old", "own")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "checkpoint.safetensors").write_bytes(bytes(1000))
        os.utime(folder, (age, age))

    def rmtree(folder: Path) -> None:
        for file in list(folder.iterdir()):
            file.rename(folder / ".nfs0") if file.name == "lock" else file.unlink()
        folder.rmdir()  # raises OSError: it is not empty

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    Checkpoint(tmp_path, "own").prune(2100)
    assert not (tmp_path / "oldest" / "checkpoint.safetensors").exists()
    assert (tmp_path / "old" / "checkpoint.safetensors").exists()


def test_holding_the_lock_deletes_drafts_of_a_killed_training(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "f")
    checkpoint.folder.mkdir()
    (checkpoint.folder / ".checkpoint.safetensors.1.draft").touch()
    with checkpoint.held(print):
        assert list(checkpoint.folder.iterdir()) == [checkpoint.lock]


def test_an_error_in_the_block_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Checkpoint(tmp_path, "f").held(print):
        (tmp_path / "gone").read_text()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    names = ["own", "oldest", "f", "old", "new"]  # by age; f is held
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "checkpoint.safetensors").write_bytes(bytes(600))
        (folder / "checkpoint.damaged").write_bytes(bytes(400))
    with holder(tmp_path):
        for age, name in enumerate(names):
            os.utime(tmp_path / name, (age, age))
        Checkpoint(tmp_path, "own").prune(5200)  # a lock has its size too
        assert {folder.name for folder in tmp_path.iterdir()} == set(names)
        Checkpoint(tmp_path, "own").prune(3200)
        assert {folder.name for folder in tmp_path.iterdir()} == {"own", "f", "new"}
        Checkpoint(tmp_path, "own").prune(0)
        assert {folder.name for folder in tmp_path.iterdir()} == {"own", "f"}
