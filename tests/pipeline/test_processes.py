"""Several processes train one model: with the same weights each time, whoever is killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from safetensors import SafetensorError, safe_open
from samples import is_the_line
from trainings import TRAIN, prepare, train_warm
from workspace import Workspace

from mnist_lstm.pipeline.result_files import read_rows

MODEL, CURVE = "results/train/model.safetensors", "results/train/curve.csv"
STEPS = 150
# losses of one process and of two differ by the order in which gradients are added
TOLERANCE = 0.02  # nats
STOPPED = (
    "train: stopped by <signal>; saved at step <number> of <number>: run it again to continue from "
    "there"
)
GOES_ON = "continues from step "
BEYOND = {
    "train.schedule": "one-cycle",
    "train.weight_decay": 0.01,
    "train.clip_norm": 0.01,
    "train.averaging": 0.9,
    "augment.rotation": 5.0,
    "augment.elastic": 0.5,
    "model.reads": "both",
    "model.window": 3,
}


@pytest.fixture
def here(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A copy whose training is that of these tests."""
    workspace = prepare(baseline.copy(tmp_path / "here"), STEPS)
    workspace.set("train.eval_every", 50)
    return workspace


def trained(workspace: Workspace, processes: int) -> bytes:
    """Train without a disturbance, from the start. Returns the model."""
    workspace.set("train.processes", processes)
    with train_warm(workspace) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert printed.count("step 150, train-test") == 1  # one process prints
    return (workspace.folder / MODEL).read_bytes()


def forget(workspace: Workspace) -> None:
    """Delete the checkpoints, so that the training starts over."""
    for file in workspace.folder.glob(".checkpoints/*/*.safetensors"):
        file.unlink()


def until(process: "subprocess.Popen[str]", start: str) -> str:
    """Read what a process prints, up to a line that starts with this."""
    printed = ""
    assert process.stdout
    for line in process.stdout:
        printed += line
        if line.startswith(start):
            return printed
    raise AssertionError(printed)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param({"train.steps": 300}, id="reference", marks=pytest.mark.soak),
        pytest.param(BEYOND, id="beyond"),
    ],
)
def test_two_processes_give_the_same_weights_whoever_is_stopped_or_killed(
    here: Workspace, recipe: dict[str, object]
) -> None:
    for key, value in recipe.items():
        here.set(key, value)
    alone = trained(here, 1)
    curve = read_rows(here.folder / CURVE)
    together = trained(here, 2)
    assert together != alone
    for one, two in zip(curve, read_rows(here.folder / CURVE), strict=True):
        assert abs(one["train_loss"] - two["train_loss"]) < TOLERANCE
    assert here.json("results/train/run.json")["params"]["train"]["processes"] == 2

    forget(here)
    (here.folder / MODEL).unlink()
    with train_warm(here) as process:
        until(process, "Iter")
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("train: ")]
    assert is_the_line(STOPPED, line), line

    with train_warm(here) as process:
        printed = ""
        for rank, line in ((1, "Iter"), (0, GOES_ON)):  # in a step, and at the start
            printed += until(process, line)
            os.kill(processes_in(here, rank)[0], signal.SIGKILL)
        printed += process.communicate()[0]
    assert process.returncode == 0, printed
    assert printed.count("a process ended before its time: all 2 start again\n") == 2
    steps = re.findall(r"(?m)^continues from step (\d+) of \d+, its last checkpoint$", printed)
    assert 0 < int(steps[0]) <= int(steps[1]) <= int(steps[2])
    assert (here.folder / MODEL).read_bytes() == together


def test_an_error_is_said_once(here: Workspace) -> None:
    here.set("train.processes", 2)
    here.set("train.eval_every", 10)
    for key, value in (("optimizer", "sgd"), ("learning_rate", 1.0), ("weight_decay", 3.0)):
        here.set(f"train.{key}", value)
    with train_warm(here) as process:
        printed, _ = process.communicate()
    assert process.returncode == 1
    assert "start again" not in printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("train: ")]
    assert line.startswith("train: the loss is ")


@pytest.mark.soak  # tests/test_signals.py has the short form
def test_without_its_launcher_no_process_goes_on(here: Workspace) -> None:
    here.set("train.processes", 2)
    here.set("train.steps", 100_000)
    with here.start(*TRAIN) as process:  # a fork would not be its parent's child
        until(process, "Iter")
        process.kill()  # the launcher
        deadline = time.monotonic() + 600  # against a test that would never end
        while ranks := processes_in(here):
            assert time.monotonic() < deadline, ranks
            time.sleep(0.2)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Two network namespaces that reach each other: their names, and their addresses."""

    def ip(*arguments: str) -> int:
        return subprocess.run(["ip", *arguments], capture_output=True).returncode

    names = [f"mnist-lstm-{os.getpid()}-{number}" for number in (1, 2)]
    if not shutil.which("ip") or any(ip("netns", "add", name) for name in names):
        pytest.skip("network namespaces need root and the program ip")
    pair = [f"ml{os.getpid() % 10**6}{end}" for end in "ab"]  # at most 15 characters
    addresses = ["10.99.7.1", "10.99.7.2"]
    try:
        ip("link", "add", pair[0], "type", "veth", "peer", "name", pair[1])
        for name, device, address in zip(names, pair, addresses, strict=True):
            ip("link", "set", device, "netns", name)
            ip("-n", name, "link", "set", device, "name", "eth0")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield dict(zip(names, addresses, strict=True))
    finally:
        for name in names:
            ip("netns", "delete", name)


def torchrun(workspace: Workspace, host: str, hosts: dict[str, str]) -> "subprocess.Popen[str]":
    """Start the stage on one of the hosts, as docs/machines.md says."""
    first = next(iter(hosts.values()))
    options = {
        "--nnodes": "2",
        "--nproc-per-node": "1",
        "--max-restarts": "3",
        "--rdzv-id": "digits",
        "--rdzv-backend": "c10d",
        "--rdzv-endpoint": f"{first}:29500",
        "--rdzv-conf": f"is_host={int(hosts[host] == first)}",
        "--local-addr": hosts[host],
    }
    variables = {
        "GLOO_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        [
            *("ip", "netns", "exec", host, "torchrun"),
            *(word for option in options.items() for word in option),
            *TRAIN[1:],
        ],
        cwd=workspace.folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.soak
@pytest.mark.parametrize("rank", [0, 1])
def test_two_hosts_train_as_one_does_with_two_processes(
    here: Workspace, hosts: dict[str, str], tmp_path: Path, rank: int
) -> None:
    expected = trained(here, 2)
    forget(here)
    (here.folder / MODEL).unlink()
    workspaces = [here, here.copy(tmp_path / "other")]
    started = [
        torchrun(workspace, host, hosts) for workspace, host in zip(workspaces, hosts, strict=True)
    ]
    deadline = time.monotonic() + 600  # against a test that would never end
    while not any(step_of(workspace) >= 50 for workspace in workspaces):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (victim,) = (number for each in workspaces for number in processes_in(each, rank))
    os.kill(victim, signal.SIGKILL)
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    models = [workspace.folder / MODEL for workspace in workspaces]
    assert [model.read_bytes() for model in models if model.exists()] == [expected], printed
    assert re.search(r"(?m)^continues from step \d+ of 150", "".join(printed)), printed


def step_of(workspace: Workspace) -> int:
    """The step of the newest checkpoint in a workspace; 0 if there is none."""
    for file in workspace.folder.glob(".checkpoints/*/checkpoint.safetensors"):
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, "pt") as opened:
            return int(json.loads(opened.metadata()["checkpoint"])["step"])
    return 0


def processes_in(workspace: Workspace, rank: int | None = None) -> list[int]:
    """The ids of the processes that train together in a workspace, or of those with a rank."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            its = process.environ().get("RANK")
            is_here = Path(process.cwd()) == workspace.folder
            if is_here and its is not None and rank in (None, int(its)):
                found.append(process.pid)
    return found
