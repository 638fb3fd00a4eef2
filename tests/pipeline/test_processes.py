"""Several processes train one model: with the same weights each time, whoever is killed."""

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from samples import is_the_line
from trainings import TRAIN, prepare, train_warm
from workspace import Workspace

from mnist_lstm.pipeline.result_files import read_rows

MODEL, CURVE = "results/train/model.safetensors", "results/train/curve.csv"
STEPS = 300
# losses of one process and of two differ by the order in which gradients are added
TOLERANCE = 0.02  # nats
BEYOND = {
    "train.schedule": "one-cycle",
    "train.weight_decay": 0.01,
    "train.clip_norm": 0.01,
    "train.averaging": 0.9,
    "augment.rotation": 5.0,
    "augment.elastic": 0.5,
    "model.reads": "both",
}


@pytest.fixture
def here(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A clone whose sequences are there and whose training is that of these tests."""
    workspace = prepare(baseline.copy(tmp_path / "here"), STEPS)
    workspace.dvc("checkout", "preprocess")
    return workspace


def trained(workspace: Workspace, processes: int) -> bytes:
    """Train without a disturbance, from the start. Returns the model."""
    workspace.set("train.processes", processes)
    with train_warm(workspace) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert printed.count("step 300, train-test") == 1  # one process prints
    return (workspace.folder / MODEL).read_bytes()


def forget(workspace: Workspace) -> None:
    """Delete the checkpoints, so that the training starts over."""
    for file in workspace.folder.glob(".checkpoints/*/*.safetensors"):
        file.unlink()


def disturbed(workspace: Workspace, number: signal.Signals, rank: int | None) -> tuple[str, int]:
    """Train, and after the first evaluation signal a process, or the stage; what it prints."""
    forget(workspace)
    with train_warm(workspace) as process:
        assert process.stdout
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("Iter"):
                break
        if rank is None:
            process.send_signal(number)
        else:
            os.kill(process_of(workspace, rank), number)
        printed += process.stdout.read()
    return printed, process.wait()


def process_of(workspace: Workspace, rank: int) -> int:
    """The id of one of the processes that train in a workspace."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            is_here = Path(process.cwd()) == workspace.folder
            if is_here and environment.get("RANK") == str(rank):
                return process.pid
    raise AssertionError(f"no process has the rank {rank}")


def test_two_processes_give_the_same_weights_each_time_and_whoever_is_killed(
    here: Workspace,
) -> None:
    alone = trained(here, 1)
    curve = read_rows(here.folder / CURVE)
    together = trained(here, 2)
    assert together != alone
    for one, two in zip(curve, read_rows(here.folder / CURVE), strict=True):
        assert abs(one["train_loss"] - two["train_loss"]) < TOLERANCE
    assert here.json("results/train/run.json")["params"]["train"]["processes"] == 2

    for rank in (0, 1):
        printed, code = disturbed(here, signal.SIGKILL, rank)
        assert code == 0, printed
        assert "a process ended before its time: all 2 start again\n" in printed
        assert re.search(r"(?m)^continues from step \d+ of 300, its last checkpoint$", printed)
        assert (here.folder / MODEL).read_bytes() == together


def test_everything_beyond_the_reference_works_and_a_stop_loses_nothing(here: Workspace) -> None:
    for key, value in BEYOND.items():
        here.set(key, value)
    together = trained(here, 2)
    printed, code = disturbed(here, signal.SIGINT, None)
    assert code == 130, printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("train: ")]
    expected = (
        "train: stopped by <signal>; saved at step <number> of <number>: run it again to "
        "continue from there"
    )
    assert is_the_line(expected, line), line
    with train_warm(here) as process:
        printed, _ = process.communicate()
    assert re.search(r"(?m)^continues from step [12]\d\d of 300", printed), printed
    assert (here.folder / MODEL).read_bytes() == together


def test_an_error_is_said_once(here: Workspace) -> None:
    here.set("train.processes", 2)
    for key, value in (("optimizer", "sgd"), ("learning_rate", 1.0), ("weight_decay", 3.0)):
        here.set(f"train.{key}", value)
    with train_warm(here) as process:
        printed, _ = process.communicate()
    assert process.returncode == 1
    assert "start again" not in printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("train: ")]
    assert line.startswith("train: the loss is ")


def test_without_its_launcher_no_process_goes_on(here: Workspace) -> None:
    here.set("train.processes", 2)
    here.set("train.steps", 100_000)
    with here.start(*TRAIN) as process:  # a fork would not be its parent's child
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Iter"):
                break
        process.kill()  # the launcher
        deadline = time.monotonic() + 60
        while ranks := processes_in(here):
            assert time.monotonic() < deadline, ranks
            time.sleep(0.2)


def processes_in(workspace: Workspace) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == workspace.folder and "RANK" in process.environ():
                found.append(process)
    return found
