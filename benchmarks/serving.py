"""Requests a second that the server answers, and how long they take: single images, some clients.

Run: python benchmarks/serving.py FOLDER [--clients N] [--seconds N]
(FOLDER: made by `mnist-lstm export`). It starts the server, sends pictures (PNG) to /predict and
then pixels (JSON) to /invocations, each client one after the other over one connection, and
compares the answers with the model's own. The images are noise of the model's size: what is on them
makes no difference to the time. The last column is the processor's time for a request, which other
work on the machine changes less: the server's and the clients'.
"""

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from mnist_lstm.data import photo
from mnist_lstm.learning.model import infer
from mnist_lstm.runs.servable import Servable, read

IMAGES = 64  # different ones
WARM_UP = 1.0  # seconds


def main() -> None:
    """Measure both ways of asking, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--clients", metavar="N", type=int, default=8)
    parser.add_argument("--seconds", metavar="N", type=float, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    served = read(arguments.folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mnist_lstm.serving.app", str(arguments.folder), "127.0.0.1"]
    print("| requests | a second | median, ms | p99, ms | largest, ms | processor, ms |")
    print("|---|---|---|---|---|---|")
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            for path, bodies, expected in (pictures(served), batches(served)):
                check(port, path, bodies, expected, served)
                load(port, path, bodies, arguments.clients, WARM_UP)
                began, used = time.perf_counter(), _used(server.pid)
                took = load(port, path, bodies, arguments.clients, arguments.seconds)
                rate = len(took) / (time.perf_counter() - began)
                median, p99, most = 1000 * np.percentile(took, [50, 99, 100])
                served_in, asked_in = 1000 * (_used(server.pid) - used) / len(took)
                print(
                    f"| {path} | {rate:.0f} | {median:.1f} | {p99:.1f} | {most:.1f} | "
                    f"{served_in:.2f} + {asked_in:.2f} |",
                    flush=True,
                )
        finally:
            server.terminate()


def _used(server: int) -> np.ndarray:
    """Seconds of the processor that the server and this process have used."""
    times = [psutil.Process(process).cpu_times() for process in (server, os.getpid())]
    return np.array([each.user + each.system for each in times])


def pictures(served: Servable) -> tuple[str, list[bytes], np.ndarray]:
    """PNG files, and the model's probabilities of what `predict` makes of them."""
    form = photo.form_of(served.dataset, *served.image)
    bodies, images = [], []
    for image in _noise(served):
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        bodies.append(file.getvalue())
        images.append(photo.read_bytes(bodies[-1], form).pixels)
    return "/predict", bodies, _probabilities(served, np.stack(images))


def batches(served: Servable) -> tuple[str, list[bytes], np.ndarray]:
    """Batches of one image in JSON, and the model's probabilities."""
    images = _noise(served)
    bodies = [json.dumps({"inputs": [image.tolist()]}).encode() for image in images]
    return "/invocations", bodies, _probabilities(served, images)


def _noise(served: Servable) -> np.ndarray:
    """Images with a glyph of noise in the middle, blank around it as MNIST's are."""
    rows, pixels = served.image
    images = np.zeros((IMAGES, rows, pixels), dtype=np.uint8)
    top, left = rows // 7, pixels // 7
    inside = images[:, top : rows - top, left : pixels - left]
    inside[...] = np.random.default_rng(0).integers(1, 256, inside.shape)
    return images


def _probabilities(served: Servable, images: np.ndarray) -> np.ndarray:
    found: np.ndarray = infer(served.model, torch.from_numpy(images), 1).softmax(dim=1).numpy()
    return found


def wait_for(port: int) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def check(
    port: int, path: str, bodies: list[bytes], expected: np.ndarray, served: Servable
) -> None:
    """Compare the answers, also to many at once, with the model's own."""
    found: dict[int, list[float]] = {}

    def ask(numbers: range) -> None:
        client = Client(port, path, bodies)
        for number in numbers:
            said = json.loads(client.ask(number))
            found[number] = (
                said["predictions"][0]
                if "predictions" in said
                else [said["probabilities"][name] for name in served.classes]
            )
        client.close()

    _all(ask, [range(first, len(bodies), 8) for first in range(8)])
    difference = np.abs(np.array([found[at] for at in range(len(bodies))]) - expected).max()
    print(f"{path}: largest difference of a probability {difference:.1e}", file=sys.stderr)
    assert difference < 1e-6


def load(port: int, path: str, bodies: list[bytes], clients: int, seconds: float) -> list[float]:
    """The seconds that each request took, of clients that ask as fast as they are answered."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    def ask(first: int) -> None:
        client = Client(port, path, bodies)
        number, mine = first, []
        while (began := time.perf_counter()) < until:
            client.ask(number % len(bodies))
            mine.append(time.perf_counter() - began)
            number += 1
        client.close()
        took.extend(mine)

    _all(ask, [client * 7 for client in range(clients)])
    return took


def _all(ask, arguments) -> None:  # type: ignore[no-untyped-def]
    threads = [threading.Thread(target=ask, args=[one]) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Client:
    """A connection that stays open. It takes little time itself: the requests are ready."""

    def __init__(self, port: int, path: str, bodies: list[bytes]) -> None:
        kind = "application/json" if bodies[0].startswith(b"{") else "image/png"
        self.requests = [
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, number: int) -> bytes:
        """Send a request; returns the body of the answer."""
        self.connection.sendall(self.requests[number])
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-l"))
        while len(body) < int(length.partition(b":")[2]):
            body += self._more()
        return body

    def _more(self) -> bytes:
        more = self.connection.recv(2**16)
        assert more, "the server closed the connection"
        return more

    def close(self) -> None:
        """Close it."""
        self.connection.close()


if __name__ == "__main__":
    main()
