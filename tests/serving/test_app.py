"""The server as it is asked over a socket, around a model of images of 2 rows of 3 pixels."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server
from mlflow.types import Schema, TensorSpec
from mutations import edited, fuzz, some_edits

from mnist_lstm.serving.app import OPTIONS, guarded
from mnist_lstm.serving.patience import PatientProtocol
from mnist_lstm.serving.request import LARGEST, most_bytes

IMAGE = [[0, 128, 255], [1, 2, 3]]
BODY = json.dumps({"inputs": [IMAGE, IMAGE]}).encode()
JSON = "application/json"


class Model:
    """As much of MLflow's as its server uses."""

    schema = Schema([TensorSpec(np.dtype(np.uint8), (-1, 2, 3))])
    metadata = SimpleNamespace(get_input_schema=lambda: Model.schema)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return pixels.mean(axis=(1, 2))[:, None]

    seconds = 0.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "set by the server, and then as it was")
        app = guarded(scoring_server.init(Model()), 2, 3, ["digits.example.org"])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **OPTIONS))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, args=[[listener]])
            thread.start()
            yield listener.getsockname()[1]
            server.should_exit = True
            thread.join()


def sent(port: int, *parts: bytes, end: bool = False) -> bytes:
    """All that comes back for some bytes; with `end`, after which nothing more is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        answer = b""
        with suppress(OSError):  # it has answered, and closed the connection
            for part in parts:
                connection.sendall(part)
            if end:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while received := connection.recv(2**16):
                answer += received
    return answer


def head(path: str = "/invocations", method: str = "POST", **headers: str | int) -> bytes:
    given = {"Host": "127.0.0.1", "Connection": "close", **headers}
    lines = (f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def asked(port: int, body: bytes = BODY, path: str = "/invocations", **headers: str) -> bytes:
    start = head(path, **{"Content_Type": JSON, "Content_Length": len(body), **headers})
    return sent(port, start, body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_images_are_answered(port: int) -> None:
    answer = asked(port)
    assert (status(answer), json.loads(answer.split(b"\r\n\r\n")[1])) == (
        200,
        {"predictions": [[np.mean(IMAGE)]] * 2},
    )


def test_the_largest_request_is_as_python_writes_it() -> None:
    body = json.dumps({"inputs": [[[255] * 3] * 2] * LARGEST}).encode()
    assert len(body) <= most_bytes(2, 3) < len(body) + 10


def test_a_larger_one_is_refused_before_it_is_sent(port: int) -> None:
    length = most_bytes(2, 3) + 1
    assert status(sent(port, head(Content_Type=JSON, Content_Length=length))) == 413
    assert status(asked(port, BODY.ljust(length - 1))) == 200


def test_a_larger_one_in_chunks_is_refused_while_it_comes(port: int) -> None:
    chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    chunks = [chunk] * (most_bytes(2, 3) // 2**16 + 1)  # and no end
    start = head(Content_Type=JSON, Transfer_Encoding="chunked")
    assert status(sent(port, start, *chunks)) == 413


@pytest.mark.parametrize("start", [b"", b"GET /ping HT", head(Content_Length=len(BODY)) + BODY[:9]])
def test_a_request_that_does_not_come_whole_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    start = start.replace(b"\r\n\r\n", f"\r\nContent-Type: {JSON}\r\n\r\n".encode())
    assert sent(port, start) == b""


def test_an_answer_may_take_longer_than_a_request(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    monkeypatch.setattr(Model, "seconds", 0.5)
    assert status(asked(port)) == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:5001", 200),
        ("digits.example.org", 200),
        ("evil.example.org", 400),
        ("127.0.0.1.example.org", 400),
    ],
)
def test_it_is_asked_by_its_own_names_only(port: int, host: str, expected: int) -> None:
    assert status(asked(port, Host=host)) == expected


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_there_is_no_page_that_loads_scripts_from_elsewhere(port: int, path: str) -> None:
    assert status(sent(port, head(path, "GET"))) == 404


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_mlflows_other_answers_stay(port: int, path: str) -> None:
    assert status(sent(port, head(path, "GET"))) == 200


def test_half_a_surrogate_pair_is_refused_in_words(port: int) -> None:
    answer = asked(port, b'{"inputs": "\\ud800"}')
    assert status(answer) == 400
    (message,) = {json.loads(answer.split(b"\r\n\r\n")[1])["message"]}
    assert message.endswith('it is the text "\ud800"')


def test_a_path_that_only_looks_other_is_checked_too(port: int) -> None:
    answer = asked(port, BODY.replace(b"255", b"256"), "/invocations%0A")
    assert status(answer) == 400
    assert b"is 256; pixels are whole numbers" in answer


def test_an_upload_that_is_broken_off_is_a_line_in_the_log(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    sent(port, head(Content_Type=JSON, Content_Length=len(BODY)), BODY[:9], end=True)
    until = time.monotonic() + 60
    while not caplog.records and time.monotonic() < until:
        time.sleep(0.01)
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("A request broke off before its end.", None)


def test_a_malformed_body_has_one_answer_and_no_traceback(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    start = head("/ping", "GET", Transfer_Encoding="chunked")
    for parts in ([start + b"no length\r\n"], [start, b"no length\r\n"]):  # refused, or too late
        assert sent(port, *parts).count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.exc_info]


WORTH = [b'"\\ud800"', b"NaN", b"1e999", b"[", b"]", b"{", b"null", b"-1", b"256", b"\xff"]
BODIES = st.builds(lambda edits: edited(BODY, [1, 12, 13, 14], edits), some_edits(WORTH))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content_Type": st.sampled_from([JSON, "text/csv", f"{JSON}; charset=x", f"{JSON};;=", ""]),
        "Content_Length": st.sampled_from([0, 1, 10**9, 10**30, -1, "x", "1, 2"]),
        "Transfer_Encoding": st.sampled_from(["chunked", "gzip", "x"]),
        "Host": st.sampled_from(["localhost:x", "[::1]", "a b", "", "127.0.0.1, 127.0.0.1"]),
        "Expect": st.sampled_from(["100-continue", "x"]),
        "Content_Encoding": st.just("gzip"),
        "Upgrade": st.just("websocket"),
        "Connection": st.just("upgrade"),
    },
)
PATHS = ["/invocations", "/invocations%0A", "/invocations/", "//invocations", "/ping", "*", "x"]
METHODS = ["POST", "POST", "POST", "GET", "PUT", "post", "HEAD", "OPTIONS", "CONNECT"]


@fuzz(300)
@given(BODIES, HEADERS, st.sampled_from(PATHS), st.sampled_from(METHODS))
def test_no_request_brings_it_down(
    port: int,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    headers: dict[str, str | int],
    path: str,
    method: str,
) -> None:
    given = {"Content_Type": JSON, "Content_Length": len(body), **headers}
    answer = sent(port, head(path, method, **given), body, end=True)
    assert all(int(code) < 500 for code in re.findall(rb"HTTP/1.1 (\d+)", answer)), answer
    assert b"Traceback" not in answer
    assert b'File "' not in answer
    assert not [record for record in caplog.records if record.exc_info]
