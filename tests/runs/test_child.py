"""A child that ends with its command. The real dvc is met in tests/pipeline."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from samples import PROJECT

from mnist_lstm.runs import child

COMMAND = """
import os, sys
from pathlib import Path
from mnist_lstm.runs.child import interruptible, run_dvc
try:
    with interruptible():
        print(run_dvc("repro", folder=Path(), environment=os.environ, report=print))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
# in the place of dvc: says that it is there, and what it is told
DVC = """
import os, sys, time
try:
    print("at work", os.environ["MNIST_LSTM_COMMAND"], flush=True)
    time.sleep({})
except KeyboardInterrupt:
    open("told", "w").write("Ctrl-C")
    time.sleep(0.5)
    open("told", "a").write(", done")
    sys.exit(1)
print("at the end")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dvc").mkdir()
    (tmp_path / "dvc" / "__init__.py").touch()
    return tmp_path


def command(folder: Path, seconds: float, before: str = "") -> "subprocess.Popen[str]":
    (folder / "dvc" / "__main__.py").write_text(DVC.format(seconds))
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}{COMMAND}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_its_lines_are_reported_and_returned(folder: Path) -> None:
    with command(folder, 0) as process:
        printed, _ = process.communicate()
    said = [f"at work {process.pid}", "at the end"]
    assert printed.splitlines() == [*said, f"(0, {said})"]


@pytest.fixture(autouse=True)
def _as_in_a_command() -> Iterator[None]:
    """Else a child ignores Ctrl-C if the tests run in a shell's background."""
    with child.interruptible():
        yield


def test_nobody_asks_whether_it_is_enough_once_it_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two threads would tell Optuna of a trial's curve at once."""
    (folder / "dvc" / "__main__.py").write_text(DVC.format(0.5))
    monkeypatch.setattr(child, "WATCHED", 0.0)
    asked: list[str] = []

    def is_enough() -> bool:
        asked.append("begins")
        time.sleep(2)  # the child ends meanwhile
        asked.append("ends")
        return False

    environment = os.environ | {"PYTHONPATH": str(folder)}
    code, _ = child.run_dvc(
        "repro", folder=folder, environment=environment, report=print, is_enough=is_enough
    )
    assert code == 0
    assert asked == ["begins", "ends"] * (len(asked) // 2)
    assert asked


def test_if_asking_whether_it_is_enough_fails_it_cleans_up(folder: Path) -> None:
    (folder / "dvc" / "__main__.py").write_text(DVC.format(1000))

    def is_enough() -> bool:
        raise LookupError("no such trial")

    begun = threading.Event()
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    with pytest.raises(LookupError, match="no such trial"):
        child.run_dvc(
            "repro",
            folder=folder,
            environment=environment,
            report=lambda _: begun.set(),
            is_enough=lambda: begun.is_set() and is_enough(),
        )
    assert (folder / "told").read_text() == "Ctrl-C, done"


def test_in_a_thread_too_an_error_ends_the_child_and_is_raised(folder: Path) -> None:
    (folder / "dvc" / "__main__.py").write_text(DVC.format(20))
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}

    def report(_: str) -> None:
        raise LookupError("no such trial")

    with ThreadPoolExecutor() as threads:
        call = threads.submit(
            child.run_dvc, "repro", folder=folder, environment=environment, report=report
        )
        with pytest.raises(LookupError, match="no such trial"):
            call.result()
    assert (folder / "told").read_text() == "Ctrl-C, done"


def test_a_child_that_does_not_end_when_it_is_enough_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    (folder / "dvc" / "__main__.py").write_text(deaf + DVC.format(20))
    monkeypatch.setattr(child, "PATIENCE", 0.5)
    begun = threading.Event()
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    code, _ = child.run_dvc(
        "repro",
        folder=folder,
        environment=environment,
        report=lambda _: begun.set(),
        is_enough=begun.is_set,
    )
    assert code == -signal.SIGKILL


IGNORES = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@pytest.mark.parametrize(
    ("number", "before"),
    [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGHUP, ""), (signal.SIGINT, IGNORES)],
)
def test_it_cleans_up_before_the_command_ends(
    folder: Path, number: signal.Signals, before: str
) -> None:
    with command(folder, 1000, before) as process:
        assert process.stdout
        assert process.stdout.readline() == f"at work {process.pid}\n"
        process.send_signal(number)
        process.send_signal(signal.SIGTERM)  # does not break into it
        assert process.stdout.read() == "stopped\n"
        assert (folder / "told").read_text() == "Ctrl-C, done"
    assert process.returncode == 0
