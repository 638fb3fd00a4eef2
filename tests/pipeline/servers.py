"""Start the project's servers as users do, and send them requests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from workspace import Workspace

IMAGE = [[0] * 8] * 8  # as digits has them
REFUSED = {
    json.dumps({"inputs": IMAGE}).encode(): "put a single image into brackets",
    json.dumps({"inputs": [IMAGE[1:]]}).encode(): "inputs[0] must have 8 rows; it has 7",
    json.dumps({"inputs": [[*IMAGE[1:], [0.5] * 8]]}).encode(): "[7][0] is 0.5; pixels are",
    json.dumps({"inputs": [[*IMAGE[1:], ["1"] * 8]]}).encode(): 'is the text "1"; pixels are',
    json.dumps({"inputs": [[*IMAGE[1:], [256] * 8]]}).encode(): "is 256; pixels are whole numbers",
    json.dumps({"inputs": [[*IMAGE[1:], [-1] * 8]]}).encode(): "is -1; pixels are whole numbers",
    json.dumps({"inputs": [[*IMAGE[1:], [float("nan")] * 8]]}).encode(): "the body has NaN",
    json.dumps({"inputs": []}).encode(): "it is empty",
    b"": "the body is empty",
    b'{"inputs": [[': "the body is not JSON (line 1, column",
    b"{}": "the JSON must be",
}


def make(workspace: Workspace, target: str, port: int) -> tuple[str, ...]:
    """The command that starts a server, in the environment of the tests."""
    (workspace.folder / "scripts" / "env.sh").write_text("")
    (workspace.folder / ".venv" / "bin").mkdir(parents=True)
    (workspace.folder / ".venv" / "bin" / "activate").touch()
    return ("make", "--silent", target, f"PORT={port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def server(*command: str | Path, folder: Path, health: str, **environment: str) -> Iterator[None]:
    """A server that answers; at the end it is killed with its children."""
    log = folder / "server.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not answers(health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def listens_on(folder: Path) -> set[str]:
    """The addresses at which processes that work in a folder accept connections."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == folder:
                found |= {
                    connection.laddr.ip
                    for connection in process.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                }
    return found


def ask(url: str, content: bytes, kind: str = "application/json") -> tuple[int, str]:
    """Send a request; returns the status and the body of the answer."""
    request = urllib.request.Request(f"{url}/invocations", content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
