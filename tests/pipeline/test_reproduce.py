"""`mnist-lstm reproduce` really trains runs again, in a temporary worktree.

test_champion.py has the tests that give the same weights, from a clean commit and changed code.
"""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from remade import SCRATCH, nothing_is_left, reproduce, state_of
from workspace import Workspace

from mnist_lstm.runs.worktree import scratch


def test_another_processor_is_named(workspace: Workspace, temporary: Path) -> None:
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no kernels of its own")
    about = workspace.json("results/train/run.json")
    kernels = {"ATEN_CPU_CAPABILITY": "default"}  # torch's, without AVX and the like
    told = reproduce(workspace, about["name"], "--tolerance", "1", code=1, **kernels)
    assert told["outcome"] == "close"
    (reason,) = told["reasons"]
    assert reason == f"device: {about['device']} then, {told['now']['device']} now"
    assert told["now"]["model_sha256"] != about["model_sha256"]
    assert list(temporary.glob(SCRATCH)) == []


def is_at_work(folder: Path) -> bool:
    """Whether a process has its working folder there."""
    folders = (process.info["cwd"] or "" for process in psutil.process_iter(["cwd"]))
    return any(Path(each).is_relative_to(folder) for each in folders)


def runs_to_its_end(process: "subprocess.Popen[str]", temporary: Path) -> bool:
    """Wait for the process. Returns whether the pipeline has measured the model before."""
    while process.poll() is None:
        if list(temporary.glob(f"{SCRATCH}/code/results/evaluate/metrics.json")):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_reproduction_leaves_nothing_behind(
    workspace: Workspace, temporary: Path, number: signal.Signals
) -> None:
    # dvc has a session of its own, so that each signal is for the command alone. What a stage does
    # after a kill of the command is tested with installed programs
    start = workspace.start if number == signal.SIGKILL else workspace.start_warm
    at_work = "Running stage 'preprocess'" if number == signal.SIGKILL else "20 steps of 32 of "
    before = state_of(workspace)
    with start("mnist-lstm", "reproduce", "digits") as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith(at_work):
                break
        assert not nothing_is_left(workspace)
        assert is_at_work(temporary)
        process.send_signal(number)
        assert not runs_to_its_end(process, temporary)
        printed = process.stdout.read()
    if number == signal.SIGKILL:
        assert not nothing_is_left(workspace)
        deadline = time.monotonic() + 120  # until its dvc has noticed, it is at work there
        while not nothing_is_left(workspace):
            assert time.monotonic() < deadline
            time.sleep(1)
            with scratch(workspace.folder):  # as the next one begins
                pass
    else:
        assert process.returncode == 130
        said = "stopped; the temporary worktree is gone, and nothing here has changed"
        assert printed.endswith(f"mnist-lstm reproduce: {said}\n"), repr(printed)
    assert nothing_is_left(workspace)
    assert list(temporary.glob(SCRATCH)) == []
    assert not is_at_work(temporary)
    assert state_of(workspace) == before
