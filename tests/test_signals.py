"""Send real signals to a process that watches for them."""

import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from samples import PROJECT

from mnist_lstm.pipeline import signals

# prints what it is doing, then the result. The phase that its argument names lasts until a signal
# comes or nobody holds its standard input open; the others take no time
SCRIPT = """
import select, sys, threading
from mnist_lstm.pipeline import signals
signals.SILENT = float(sys.argv[2]) if sys.argv[2:] else signals.SILENT
signals.watch()
def at(what):
    print(what, flush=True)
    while what == sys.argv[1] and not (signals.came() or select.select([0], [], [], 0.01)[0]):
        pass
try:
    at("imports")
    with signals.immediate():
        at("work")
        with signals.deferred():
            at("step")
            print("step done", signals.came(), flush=True)
        for each in threading.enumerate():
            if isinstance(each, threading.Timer):
                each.join()  # a line that is still to come comes now
        print("never after a signal", flush=True)
except signals.Interrupted as stop:
    print("saving", flush=True)
    sys.stdin.read()  # while more signals come
    print(stop, flush=True)
    sys.exit(stop.exit_code)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@contextmanager
def started(
    *command: str | Path, stdout: int = subprocess.PIPE, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """A process with the project's code, no dvc above it, and a standard input held open."""
    inherited = {k: v for k, v in os.environ.items() if k != "DVC_STAGE"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.STDOUT if stdout == subprocess.PIPE else None,
        text=True,
        env=inherited | {"PYTHONPATH": str(PROJECT / "src")} | environment,
    ) as process:
        yield process


def read_up_to(word: str, process: "subprocess.Popen[str]") -> None:
    assert process.stdout
    while process.stdout.readline().strip() != word:
        assert process.poll() is None


def printed_after(process: "subprocess.Popen[str]", word: str, *signals: signal.Signals) -> str:
    """What a process prints that gets signals at this line, and is then held up no longer."""
    read_up_to(word, process)
    for number in signals:
        process.send_signal(number)
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
    script: Path, word: str, number: signal.Signals, name: str, code: int
) -> None:
    with started(sys.executable, script, word) as process:
        printed = printed_after(process, word, number)
    assert process.returncode == code
    assert printed.endswith(f"stopped by {name}; earlier results are kept: run it again\n")
    assert "never" not in printed
    assert ("work" in printed) is False  # what came during the imports is met before the work
    assert (f"step done {int(number)}" in printed) == (word == "step")


def test_a_second_signal_does_not_break_into_the_work_of_the_first(script: Path) -> None:
    with started(sys.executable, script, "step") as process:
        read_up_to("step", process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        printed = printed_after(process, "saving", signal.SIGTERM, signal.SIGINT)
    assert process.returncode == 130
    assert printed == "stopped by Ctrl-C; earlier results are kept: run it again\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_ignored_signals_stay_ignored_except_ctrl_c(
    script: Path, number: signal.Signals, code: int
) -> None:
    """nohup ignores SIGHUP; a shell script ignores SIGINT for a command in the background."""
    ignores = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    python = sys.executable
    with started(python, "-c", ignores, python, script, "work") as process:
        printed = printed_after(process, "work", number)
    assert process.returncode == code
    assert printed.endswith("never after a signal\n") == (code == 0)


@pytest.mark.parametrize(
    ("held", "silent", "told"),
    [
        ("imports", 0.1, "importing torch and the like …\n"),
        ("none", 60, ""),  # work that outlasts the 60 seconds, if a line is to come then
    ],
)
def test_slow_imports_are_announced_on_a_terminal(
    script: Path, held: str, silent: float, told: str
) -> None:
    ours, theirs = pty.openpty()
    with started(sys.executable, script, held, str(silent), stdout=theirs) as process:
        assert process.stdin
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # Linux's word for the end
            while part := os.read(ours, 1000):
                printed += part
                if "…\r\n".encode() in printed:  # the whole line, as a terminal has it
                    process.stdin.close()
    os.close(ours)
    assert process.returncode == 0
    story = f"imports\n{told}work\nstep\nstep done None\nnever after a signal\n"
    assert printed.decode().replace("\r\n", "\n") == story


@pytest.mark.parametrize("before", ["", "trap '' TERM; "])
def test_a_stage_ends_when_the_command_above_dvc_ends(script: Path, before: str) -> None:
    """The command above is killed; dvc, the stage's parent, is not."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as command:  # ends with its input
        above = {"DVC_STAGE": "train", signals.COMMAND: str(command.pid)}
        stage = f"{before}exec {shlex.join([sys.executable, str(script), 'imports'])}"
        with started("/bin/sh", "-c", stage, **above) as process:
            read_up_to("imports", process)
            command.kill()  # nobody waits for it, as with a parent that sleeps
            read_up_to("saving", process)
            printed, _ = process.communicate()
    assert "stopped since mnist-lstm is gone" in printed


@pytest.mark.parametrize(
    ("variable", "shell"),
    [
        ("DVC_STAGE", None),
        ("DVC_STAGE", "bash"),  # which replaces itself with its only command
        ("DVC_STAGE", "/bin/sh"),  # which may stay in between
        (signals.OUTCOMES, None),
    ],
)
def test_a_stage_ends_when_its_dvc_or_its_launcher_ends(
    script: Path, variable: str, shell: str | None
) -> None:
    """Only its parent is killed; it gets no signal."""
    starts = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    stage = [sys.executable, str(script), "imports"]
    command = [shell, "-c", shlex.join(stage)] if shell else stage
    with started(sys.executable, "-c", starts, *command, **{variable: "train"}) as parent:
        read_up_to("imports", parent)
        parent.kill()
        read_up_to("saving", parent)
        printed, _ = parent.communicate()  # ends when the child does, which has it too
    assert "stopped since dvc is gone" in printed
