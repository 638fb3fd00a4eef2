"""Run dvc as the child of a command. It ends when the command ends, for whatever reason.

A signal to the command first ends dvc and its stage. If the command is killed, the stage ends
itself, because it knows the command's process id (pipeline/signals); dvc then ends, because its
stage has failed.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mnist_lstm.pipeline.signals import COMMAND

WATCHED = 0.2  # seconds between two calls of `is_enough`
PATIENCE = 60  # seconds for a child to save a checkpoint and clean up; then it is killed


def run_dvc(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    report: Callable[[str], object],
    open_files: Sequence[int] = (),
    is_enough: Callable[[], bool] | None = None,
) -> tuple[int, list[str]]:
    """Run dvc in a folder; returns its exit code and the lines of its output.

    `report` is called with each line of the output. The child inherits `open_files`. A thread calls
    `is_enough` several times a second, but not after this function has returned; when it returns
    True, dvc and its stage are ended as by Ctrl-C. What it raises ends them too, and is raised.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={**environment, "PATH": path, COMMAND: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # only this process gets Ctrl-C, and passes it on
        pass_fds=open_files,
    ) as process:
        try:
            with _watched(process, is_enough):
                assert process.stdout
                for line in process.stdout:
                    lines.append(line.rstrip())
                    report(lines[-1])
                return process.wait(), lines
        except BaseException:
            with undisturbed():
                _end(process)
            raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt in the block, as Ctrl-C does.

    If these two were ignored, for example after nohup, they stay ignored. Ctrl-C does not: a shell
    makes the commands that a script runs in the background ignore it, and their children too.
    """
    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore signals to stop while the block cleans up. Only the main thread gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _STOPPING}
    try:
        yield
    finally:
        _restore(before)


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(*_: object) -> None:
    for number in _STOPPING:  # a second signal must not interrupt the clean-up after the first
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


@contextmanager
def _watched(
    process: "subprocess.Popen[str]", is_enough: Callable[[], bool] | None
) -> Iterator[None]:
    """Call `is_enough` in a thread that ends with the block. When it returns True, press Ctrl-C.

    What it raises is raised at the end of the block, after Ctrl-C. If the block lasts PATIENCE
    longer, the child and its stage are killed.
    """
    over, failed = threading.Event(), list[BaseException]()

    def watch() -> None:
        try:
            while is_enough and not over.wait(WATCHED) and process.poll() is None:
                if is_enough():
                    break
            else:
                return
        except BaseException as error:
            failed.append(error)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            if not over.wait(PATIENCE):
                os.killpg(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    if is_enough:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if is_enough:
            thread.join()
    if failed:
        raise failed[0]


def _end(process: "subprocess.Popen[str]") -> None:
    """End dvc and its stage as Ctrl-C does. Kill them if that takes longer than PATIENCE."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is None:
            try:
                os.killpg(process.pid, number)
                process.communicate(timeout=PATIENCE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
