"""A training that is killed or stopped, in whatever way, ends like one that was not."""

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import trainings
import yaml
from samples import catalogue, is_the_line
from test_processes import step_of
from trainings import EVAL_EVERY, STEPS, train_warm, trainer_of, uninterrupted
from workspace import Workspace

from mnist_lstm.pipeline import signals
from mnist_lstm.pipeline.result_files import read_rows
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.view import View

LINES = [line for line in catalogue()["Stopping and continuing"] if "mnist-lstm" not in line]
STOPPED, STOPPED_BEFORE, DVC_IS_GONE, _, GOES_ON, WAITS, DAMAGED, BEFORE = LINES
TRAINS = re.compile(r"^continues from step|steps of 32 of ")  # then it opens the store
MEASURES = re.compile(r"^Iter")


# the best model, which a checkpoint has too, survives like the last one
prepare = partial(trainings.prepare, keep_best=True)


@pytest.fixture
def dice() -> random.Random:
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments are drawn with seed {seed}")  # shown where the test fails
    return random.Random(seed)


def stopped(
    process: "subprocess.Popen[str]",
    stop: Callable[[int], None],
    delay: float = 0.0,
    is_moment: Callable[[str], object] = MEASURES.search,
) -> str:
    """Stop a dvc some time after its first line for which `moment` is true; returns its output."""
    printed = ""
    assert process.stdout
    for line in process.stdout:
        printed += line
        if is_moment(line):
            time.sleep(delay)
            stop(process.pid)
            break
    else:
        raise AssertionError(printed)
    rest, _ = process.communicate()
    return printed + rest


def group(number: signal.Signals) -> Callable[[int], None]:
    return lambda pid: os.killpg(pid, number)


def alone(number: signal.Signals) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)


def trainer(workspace: Workspace, number: signal.Signals) -> Callable[[int], None]:
    """Signals the training process and not the dvc above it."""

    def stop(_: int) -> None:
        os.kill(trainer_of(workspace), number)

    return stop


def dvc_while_its_trainer_sleeps(workspace: Workspace) -> Callable[[int], None]:
    """Kill dvc alone. Its trainer is held, so that it makes no step until it can notice."""

    def stop(pid: int) -> None:
        trainer(workspace, signal.SIGSTOP)(pid)
        os.kill(pid, signal.SIGKILL)
        time.sleep(signals.PARENT_CHECKED)
        trainer(workspace, signal.SIGCONT)(pid)

    return stop


def said(printed: str) -> list[str]:
    """The lines of the catalogue that were met."""
    return [line for line in LINES if any(is_the_line(line, met) for met in printed.splitlines())]


def assert_equal(workspace: Workspace, whole: Workspace) -> None:
    """Both have the same weights, best weights and curve, and MLflow has each step once."""
    expected, results = whole.results(), workspace.results()
    for name in ("model.safetensors", "best.safetensors", "curve.csv"):
        path = f"results/train/{name}"
        assert results[path] == expected[path], name
    seconds = [row["seconds"] for row in timings(workspace)]
    assert seconds == sorted(seconds)
    assert_shown_once(workspace, whole)


def timings(workspace: Workspace) -> list[dict[str, float]]:
    return read_rows(workspace.folder / "results" / "train" / "timing.csv")


def assert_shown_once(workspace: Workspace, whole: Workspace) -> None:
    (run,) = workspace.runs()
    assert run.info.status == "FINISHED"
    curve = read_rows(whole.folder / "results" / "train" / "curve.csv")
    history = open_store(workspace.folder).client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["train_loss"]) for r in curve]


def kill_often(
    workspace: Workspace,
    dice: random.Random,
    times: int,
    steps: int,
    start: "Callable[..., subprocess.Popen[str]]",
) -> None:
    """Kill `dvc repro train` this often, after steps drawn at random from the whole training.

    Every fifth kill comes before the first step instead, while MLflow's store is opened.
    """
    moments = sorted(dice.sample(range(EVAL_EVERY, steps - 200, EVAL_EVERY), times))
    begun = [0]  # the step that each life goes on from
    for number, step in enumerate(moments, 1):
        is_early = number % 5 == 0
        delay = dice.uniform(0, 0.1)
        process = start("dvc", "repro", "train")
        printed = stopped(
            process, group(signal.SIGKILL), delay, TRAINS.search if is_early else measures(step)
        )
        assert process.returncode == -signal.SIGKILL  # it was not over yet
        assert not (workspace.folder / "results" / "train" / "model.safetensors").exists()
        if number > 1:
            begun.append(went_on_from(printed))
        what = "before a step" if is_early else f"at step {step}"
        print(f"kill {number}: begun at {begun[-1]}, {what} and {delay * 1000:.0f} ms")
    begun.append(went_on_from(workspace.dvc("repro", "train")))
    print(f"the last one: begun at {begun[-1]} of {steps}")
    for life, (step, later) in enumerate(pairwise(begun), 1):
        # each life may write its first checkpoint at once, and each one that trained got that far
        assert later >= step if life == 1 or life % 5 == 0 else later > step, life


def measures(step: int) -> Callable[[str], bool]:
    """Whether a line reports an evaluation at this step or a later one."""
    return lambda line: any(int(at) >= step for at in re.findall(r"^Iter.* step (\d+),", line))


def went_on_from(printed: str) -> int:
    (step,) = re.findall("(?m)^continues from step (.*) of ", printed)
    return int(step.replace(",", ""))


def test_killed_at_random_moments(
    workspace: Workspace, whole: Workspace, dice: random.Random
) -> None:
    (workspace.folder / "mlflow.db").unlink()  # which is then made, too
    prepare(workspace, STEPS)
    kill_often(workspace, dice, 2, STEPS, workspace.start_warm)
    assert_equal(workspace, whole)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments(
    workspace: Workspace, baseline: Workspace, tmp_path: Path, dice: random.Random
) -> None:
    steps = 8000
    (workspace.folder / "mlflow.db").unlink()  # which is then made, too
    whole = uninterrupted(baseline, tmp_path / "whole", steps)
    prepare(workspace, steps)
    kill_often(workspace, dice, 20, steps, workspace.start)
    assert_equal(workspace, whole)


def test_killed_under_a_temporary_experiment(
    workspace: Workspace, whole: Workspace, dice: random.Random
) -> None:
    prepare(workspace, STEPS)
    command = ("exp", "run", "--temp", "--name", "tried", "train")
    process = workspace.start_warm("dvc", *command)
    step = dice.randrange(100, STEPS - 200, EVAL_EVERY)
    stopped(process, group(signal.SIGKILL), is_moment=measures(step))
    # a slow machine may have left out all checkpoints but the first, which is of step 0
    saved = step_of(workspace)
    assert went_on_from(workspace.dvc(*command)) == saved
    (ref,) = workspace.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/tried").split()
    curve = workspace.git("show", f"{ref}:results/train/curve.csv")
    assert curve.encode() == whole.results()["results/train/curve.csv"]
    outs = yaml.safe_load(workspace.git("show", f"{ref}:dvc.lock"))["stages"]["train"]["outs"]
    (md5,) = [out["md5"] for out in outs if out["path"].endswith("model.safetensors")]
    weights = whole.results()["results/train/model.safetensors"]
    assert md5 == hashlib.md5(weights).hexdigest()
    assert_shown_once(workspace, whole)


def test_stopped_by_signals(workspace: Workspace, whole: Workspace) -> None:
    before = workspace.results()
    prepare(workspace, STEPS)
    # dvc starts a stage in a shell. Some shells, such as Debian's sh, stay in between and may die
    # of Ctrl-C: their code tells nothing. Others, such as bash, replace themselves with the
    # trainer: test_signals.py has both
    dvc_is_gone = dvc_while_its_trainer_sleeps(workspace)
    for start, stop, line in (
        (workspace.start_warm, group(signal.SIGINT), STOPPED),
        (workspace.start_warm, trainer(workspace, signal.SIGTERM), STOPPED),
        (workspace.start, dvc_is_gone, DVC_IS_GONE),
    ):
        process = start("dvc", "repro", "train", SHELL="/bin/sh")
        printed = stopped(process, stop)
        assert line in said(printed), printed
        assert "Traceback" not in printed
        (run,) = workspace.runs()
        assert run.info.status == "KILLED"
        assert workspace.results() == before
        if "SIGTERM" in printed:
            assert "exited with 143" in printed
    finished = workspace.dvc("repro", "train")
    assert GOES_ON in said(finished)
    assert_equal(workspace, whole)


def catches_sigterm(process: psutil.Process) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = re.search(r"(?m)^SigCgt:\s+(\w+)", status)
        return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells in /proc")
def test_stopped_while_it_imports(workspace: Workspace) -> None:
    before = workspace.results()
    process = workspace.start("dvc", "repro", "--force", "--single-item", "evaluate")

    def once_it_can_tell(pid: int) -> None:
        """A stage notes every signal from the moment before its first slow import."""
        while not any(catches_sigterm(one) for one in psutil.Process(pid).children(recursive=True)):
            time.sleep(0.005)
        os.killpg(pid, signal.SIGINT)

    starts = re.compile("^> python src/evaluate.py")
    printed = stopped(process, once_it_can_tell, is_moment=starts.search)
    assert STOPPED_BEFORE in said(printed), printed
    assert "Traceback" not in printed
    assert workspace.results() == before


def test_killed_between_the_end_of_training_and_dvcs_lock(
    workspace: Workspace, whole: Workspace
) -> None:
    prepare(workspace, STEPS)
    lock = (workspace.folder / "dvc.lock").read_bytes()
    last = workspace.folder / "results" / "train" / "timing.csv"  # of what a training writes

    def once_it_is_written(pid: int) -> None:
        while not last.exists():
            time.sleep(0.005)
        os.killpg(pid, signal.SIGKILL)

    printed = stopped(workspace.start("dvc", "repro", "train"), once_it_is_written)
    assert "Warning" not in printed  # of the installed programs, which a fork would not repeat
    assert (workspace.folder / "dvc.lock").read_bytes() == lock
    printed = workspace.dvc("repro", "train")
    assert f"continues from step {STEPS:,} of {STEPS:,}" in printed
    assert "Iter" not in printed
    assert_equal(workspace, whole)


def test_a_second_trainer_waits_and_completes(
    workspace: Workspace, whole: Workspace, baseline: Workspace, tmp_path: Path
) -> None:
    other = prepare(baseline.clone(tmp_path / "other"), STEPS)
    for one in (prepare(workspace, STEPS), other):
        shutil.copytree(baseline.folder / "data", one.folder / "data", dirs_exist_ok=True)
    first = train_warm(workspace)
    assert first.stdout
    while not TRAINS.search(first.stdout.readline()):
        assert first.poll() is None
    trains = trainer_of(workspace)
    os.kill(trains, signal.SIGSTOP)  # it sleeps until the second has noticed it
    second = train_warm(other, DVC_ROOT=str(workspace.folder))
    assert second.stdout
    printed = second.stdout.readline()
    os.kill(trains, signal.SIGCONT)
    printed += second.communicate()[0]
    assert (first.wait(), second.returncode) == (0, 0)
    first.stdout.close()
    assert f"process {trains} in {workspace.folder}, since " in printed
    assert WAITS in said(printed), printed
    assert f"continues from step {STEPS:,} of {STEPS:,}" in printed
    assert other.json("results/train/run.json") == workspace.json("results/train/run.json")
    for one in (workspace, other):
        assert (
            one.results()["results/train/curve.csv"] == whole.results()["results/train/curve.csv"]
        )
    assert_shown_once(workspace, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_disk_that_fills_up_costs_nothing_but_time(
    workspace: Workspace, whole: Workspace
) -> None:
    prepare(workspace, STEPS)

    def fill(_: int) -> None:
        """The draft of the next checkpoint is written to a device that is always full."""
        (lock,) = workspace.folder.glob(".checkpoints/*/lock")
        draft = lock.with_name(f".checkpoint.safetensors.{trainer_of(workspace)}.draft")
        while not draft.is_symlink():
            with contextlib.suppress(FileExistsError):  # one is being written
                draft.symlink_to("/dev/full")

    process = train_warm(workspace)
    printed = stopped(process, fill)
    assert process.returncode == 1
    assert re.search(r"(?m)^train: .*/checkpoint\.safetensors: No space left on device; ", printed)
    assert "Traceback" not in printed
    assert [run.info.status for run in workspace.runs()] == ["FAILED"]
    printed, _ = train_warm(workspace).communicate()
    assert GOES_ON in said(printed), printed
    assert_equal(workspace, whole)


@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_is_set_aside(
    workspace: Workspace, whole: Workspace, both: bool
) -> None:
    prepare(workspace, STEPS)
    process = train_warm(workspace)
    stopped(process, alone(signal.SIGINT))
    assert process.returncode == 130
    (path,) = workspace.folder.glob(".checkpoints/*/checkpoint.safetensors")
    for file in (path, path.with_name("previous.safetensors"))[: 1 + both]:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    printed, _ = train_warm(workspace).communicate()
    assert BEFORE in said(printed), printed
    assert (DAMAGED in said(printed)) == both, printed
    assert (GOES_ON in said(printed)) != both, printed
    assert path.with_suffix(".damaged").read_bytes() == content
    results, expected = workspace.results(), whole.results()
    for name in ("model.safetensors", "best.safetensors", "curve.csv"):
        path = f"results/train/{name}"
        assert results[path] == expected[path], name
    assert workspace.runs()[-1].info.status == "FINISHED"
    # rows that were measured again have other times: MLflow has them once, as the files do
    store, seen = open_store(workspace.folder), View.read(workspace.folder / "results" / "train")
    project(store, seen)
    assert project(store, seen) == []
    (run,) = runs(store, f"tags.training_id = '{seen.about.training_id}'")
    history = store.client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted((m.step, m.value) for m in history) == [
        (row["step"], row["train_loss"])
        for row in read_rows(workspace.folder / "results" / "train" / "curve.csv")
    ]
