"""Send real signals to a process that watches for them."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from samples import PROJECT

from mnist_lstm.pipeline import signals

# prints what it is doing, then the result
SCRIPT = """
import os, sys, time
from mnist_lstm.pipeline import signals
signals.watch()
def at(what):
    print(what, flush=True)
    until = time.monotonic() + 0.5
    while time.monotonic() < until and not (what != "imports" and signals.came()):
        time.sleep(0.01)
try:
    at("imports")
    with signals.immediate():
        at("work")
        with signals.deferred():
            at("step")
            print("step done", signals.came(), flush=True)
        print("never after a signal", flush=True)
except signals.Interrupted as stop:
    at("saving")
    print(stop, flush=True)
    sys.exit(stop.exit_code)
"""


@pytest.fixture
def process() -> Iterator["subprocess.Popen[str]"]:
    environment = {k: v for k, v in os.environ.items() if k != "DVC_STAGE"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {"PYTHONPATH": str(PROJECT / "src")},
    ) as process:
        yield process


def printed_after(process: "subprocess.Popen[str]", word: str, *signals: signal.Signals) -> str:
    assert process.stdout
    while process.stdout.readline().strip() != word:
        assert process.poll() is None
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    return process.communicate()[0]


@pytest.mark.parametrize("word", ["imports", "work", "step"])
@pytest.mark.parametrize(
    ("number", "name", "code"),
    [
        (signal.SIGINT, "Ctrl-C", 130),
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGHUP, "SIGHUP", 129),
    ],
)
def test_a_signal_ends_the_work_where_it_is_safe(
    process: "subprocess.Popen[str]", word: str, number: signal.Signals, name: str, code: int
) -> None:
    printed = printed_after(process, word, number)
    assert process.returncode == code
    assert printed.endswith(f"stopped by {name}; earlier results are kept: run it again\n")
    assert "never" not in printed
    assert ("work" in printed) is False  # what came during the imports is met before the work
    assert (f"step done {int(number)}" in printed) == (word == "step")


def test_a_second_signal_does_not_break_into_the_work_of_the_first(
    process: "subprocess.Popen[str]",
) -> None:
    printed = printed_after(process, "step", signal.SIGINT, signal.SIGTERM, signal.SIGINT)
    assert process.returncode == 130
    assert printed.endswith("stopped by Ctrl-C; earlier results are kept: run it again\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_ignored_signals_stay_ignored_except_ctrl_c(number: signal.Signals, code: int) -> None:
    """nohup ignores SIGHUP; a shell script ignores SIGINT for a command in the background."""
    ignores = (
        "import os, signal, sys; signal.signal({}, signal.SIG_IGN); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignores.format(int(number)), sys.executable, "-c", SCRIPT]
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        printed = printed_after(process, "work", number)
    assert process.returncode == code
    assert printed.endswith("never after a signal\n") == (code == 0)


@pytest.mark.parametrize(
    ("imports", "told"), [(2.5, "importing torch and the like …\n"), (0.5, "")]
)
def test_slow_imports_are_announced_on_a_terminal(imports: float, told: str) -> None:
    ours, theirs = pty.openpty()
    script = SCRIPT.replace("+ 0.5", f"+ ({imports} if what == 'imports' else 2.5)")
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=theirs,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
    ) as process:
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # Linux's word for the end
            while part := os.read(ours, 1000):
                printed += part
    os.close(ours)
    assert process.returncode == 0
    story = f"imports\n{told}work\nstep\nstep done None\nnever after a signal\n"
    assert printed.decode().replace("\r\n", "\n") == story


def test_a_stage_ends_when_the_command_above_dvc_ends() -> None:
    """The command above is killed; dvc, the stage's parent, is not."""
    with subprocess.Popen(["sleep", "1000"]) as command:
        environment = os.environ | {
            "PYTHONPATH": str(PROJECT / "src"),
            "DVC_STAGE": "train",
            signals.COMMAND: str(command.pid),
        }
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT.replace("0.5", "2")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "imports\n"
            command.kill()  # nobody waits for it, as with a parent that sleeps
            printed = process.stdout.read()
    assert "stopped since mnist-lstm is gone" in printed


@pytest.mark.parametrize("variable", ["DVC_STAGE", signals.OUTCOMES])
def test_a_stage_ends_when_its_dvc_or_its_launcher_ends(variable: str) -> None:
    """Only its parent is killed; it gets no signal."""
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    environment = {k: v for k, v in os.environ.items() if k != "DVC_STAGE"}
    environment |= {"PYTHONPATH": str(PROJECT / "src"), variable: "train"}
    with subprocess.Popen(
        [sys.executable, "-c", starts, SCRIPT.replace("0.5", "2")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "imports\n"
        parent.kill()
        printed = parent.stdout.read()  # ends when the child does, which has it too
    assert "stopped since dvc is gone" in printed
