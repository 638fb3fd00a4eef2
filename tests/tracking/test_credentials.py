"""A password in the address of the store: no output has it, whatever goes wrong."""

import logging
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from samples import PROJECT
from sqlalchemy.engine import make_url
from tracked import ROWS, TIMINGS, about

from mnist_lstm.tracking.credentials import (
    PASSWORD,
    POSTGRES,
    URI,
    USER,
    hide,
    printable,
    without_password,
)
from mnist_lstm.tracking.follower import Follower
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.tracked_run import TrackedRun

SECRET = "hunter2/?#@x"
WRITTEN = "hunter2%2F%3F%23%40x"  # as an address has it
EXPERIMENT = b'{"experiment": {"experiment_id": "1", "name": "mnist-lstm", "tags": []}}'


@contextmanager
def server(
    reads: int = 200, writes: int = 200, body: bytes = b"no"
) -> Iterator[ThreadingHTTPServer]:
    """One that answers to reading and to writing with these codes, and notes who asks."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(reads)

        def do_POST(self) -> None:
            self.answer(reads if "search" in self.path else writes)

        def answer(self, code: int) -> None:
            opened.asked.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
            content = EXPERIMENT if code == 200 else body
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as opened:
        opened.asked = []  # type: ignore[attr-defined]
        Thread(target=opened.serve_forever, daemon=True).start()
        try:
            yield opened
        finally:
            opened.shutdown()


@pytest.fixture
def everything(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[list[str]]:
    """Lines to be looked at, beside all that is printed, logged or warned of."""
    said: list[str] = []
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    out, err = capfd.readouterr()
    said += [out, err, caplog.text, *(str(warning.message) for warning in caught)]
    assert "MLflow store" in "".join(said)
    for text in said:
        for secret in (SECRET, WRITTEN, "hunter2"):
            assert secret not in text


def test_mlflow_gets_the_password_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, f"https://ann:{WRITTEN}@example.org/ml@flow")
    hide()
    assert os.environ[URI] == "https://example.org/ml@flow"
    assert (os.environ[USER], os.environ[PASSWORD]) == ("ann", SECRET)


def test_libpq_gets_the_password_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, f"postgresql+psycopg://ann:{WRITTEN}@/db?host=/run")
    hide()
    assert os.environ[URI] == "postgresql+psycopg://ann@/db?host=/run"
    assert os.environ[POSTGRES] == SECRET


@pytest.mark.parametrize(
    ("uri", "left", "password"),
    [
        ("postgresql://ann:pa/s?s#@db/x?a=b@c", "postgresql://ann@db/x?a=b@c", "pa/s?s#"),
        ("postgresql://db/x?user=ann&password=p%2F+s", "postgresql://db/x?user=ann", "p/ s"),
        ("postgresql://db/x?password=ps&user=ann", "postgresql://db/x?user=ann", "ps"),
        ("postgresql://db/x?password=ps", "postgresql://db/x", "ps"),
        ("postgresql://ann:no@db/x?a=b&password=ps&c=d", "postgresql://ann@db/x?a=b&c=d", "ps"),
    ],
)
def test_libpq_gets_each_password_that_sqlalchemy_finds(
    uri: str, left: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_url(uri)
    assert found.query.get("password", found.password) == password
    monkeypatch.setenv(URI, uri)
    hide()
    assert (os.environ[URI], os.environ[POSTGRES]) == (left, password)
    assert make_url(left).host == found.host == "db"


def test_the_options_of_mlflows_ui_do_not_have_the_address(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users of the machine see the options of a process."""
    main = runpy.run_path(str(PROJECT / "scripts" / "ui.py"))["main"]
    monkeypatch.chdir(root)
    monkeypatch.setattr("subprocess.Popen", lambda _: None)  # what announces the page
    started: list[str] = []
    monkeypatch.setattr(os, "execvp", lambda _, options: started.extend(options))
    for name in ("BACKEND", "REGISTRY"):
        monkeypatch.setenv(f"MLFLOW_{name}_STORE_URI", "")
    for name in ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
    main("0")
    assert started[:2] == ["mlflow", "ui"]
    assert not [option for option in started if "mlflow.db" in option]
    for name in ("BACKEND", "REGISTRY"):
        assert os.environ[f"MLFLOW_{name}_STORE_URI"] == f"sqlite:///{root}/mlflow.db"


def test_only_the_server_reads_its_folder(tmp_path: Path) -> None:
    """It has the artifacts, and the users of a server with logins."""
    (folder := tmp_path / "server").mkdir(0o755)
    code = (
        "import os, runpy; os.execvp = lambda *_: open('server/users.db', 'w'); "
        f"runpy.run_path({str(PROJECT / 'scripts' / 'mlflow_server.py')!r})['main']('0')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {"server": 0o700, "users.db": 0o600}


def test_a_secret_in_the_query_is_in_no_message() -> None:
    uri = "mysql://db/x?user=ann&passwd=gehe%2Fim&charset=utf8"
    assert printable(uri) == "mysql://db/x?user=ann&passwd=…&charset=utf8"
    assert without_password("Access denied: gehe/im, gehe%2Fim", uri) == "Access denied: …, …"
    uri = "mssql+pyodbc://?odbc_connect=UID%3Dann%3BPWD%3Dgeheim"
    assert "geheim" not in printable(uri) + without_password(f"no driver: {uri}", uri)


def test_a_file_has_no_password() -> None:
    uri = "sqlite:////home/ada:x@corp.example.com/mlflow.db?secret=1"
    assert printable(uri) == uri
    said = "/home/ada:x@corp.example.com/mlflow.db: x is damaged"
    assert without_password(said, uri) == said
    assert printable("sqlite+pysqlcipher://:x@/f.db") == "sqlite+pysqlcipher://…@/f.db"


@pytest.mark.parametrize(
    "uri", ["", "https://example.org/a@b", "mysql://ann:x@h/db", "sqlite:///a@b"]
)
def test_other_addresses_stay(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, uri)
    hide()
    assert os.environ[URI] == uri
    assert USER not in os.environ


@pytest.mark.parametrize("uri", [f"http://ann:{SECRET}@127.0.0.1:9", "http://tok/en@127.0.0.1:9"])
def test_no_message_has_what_is_before_the_last_at(uri: str) -> None:
    assert printable(uri) == "http://…@127.0.0.1:9"


def test_a_password_that_is_not_escaped_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: list[str]
) -> None:
    monkeypatch.setenv(URI, "http://ann:hunter2/x@127.0.0.1:9")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI: the password in it") as error:
        open_store(tmp_path)
    everything += [*traceback.format_exception(error.value), "MLflow store"]


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ann:{WRITTEN}@127.0.0.1:9",
        f"mysql://ann:{WRITTEN}@127.0.0.1:9/db",
        f"mssql+pyodbc://ann:{WRITTEN}@127.0.0.1:9/db",
        f"nothing://ann:{WRITTEN}@127.0.0.1:9/db",
        f"postgresql://ann:{WRITTEN}@127.0.0.1:port/db",
        "http://ann:hunter2@[127.0.0.1:9/db",
        "http://hunter2@127.0.0.1:9",
    ],
)
def test_an_address_at_which_nothing_is(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: list[str]
) -> None:
    monkeypatch.setenv(URI, uri)
    with pytest.raises(TrackingError) as error:
        open_store(tmp_path)
    everything.append(str(error.value))
    if uri.startswith("http://ann:hunter2%"):
        everything += traceback.format_exception(error.value)


@pytest.mark.parametrize(
    ("uri", "code", "line"),
    [
        ("http://{}", 401, "the server asks who you are: set MLFLOW_TRACKING_USERNAME and"),
        ("http://ann:{password}@{}", 401, "the server does not accept these: correct MLFLOW_TRACK"),
        ("http://ann:{password}@{}", 403, "ann has no permission for this; the server's admin"),
        ("http://{}", 403, "you have no permission for this; the server's administrator can give"),
    ],
)
def test_a_refusal_is_one_line(
    uri: str,
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    everything: list[str],
) -> None:
    lines: list[str] = []
    with server(code, code, b"<html>hunter2</html>") as opened:
        address = f"127.0.0.1:{opened.server_port}"
        monkeypatch.setenv(URI, uri.format(address, password=WRITTEN))
        with pytest.raises(TrackingError) as error:
            open_store(tmp_path)
        follower = Follower(tmp_path, about(), lines.append)
        follower.log_rows(ROWS, TIMINGS)
        follower.finish("FINISHED", about(), TIMINGS[-1]["time"])
    assert str(error.value).startswith(f"MLflow store http://{address}: {line}")
    assert "\n" not in str(error.value)
    assert len(lines) == 1
    assert lines[0].startswith(str(error.value))
    everything += [str(error.value), *lines]


def test_who_may_only_read_can_open_the_store_and_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: list[str]
) -> None:
    with server(reads=200, writes=403) as opened:
        monkeypatch.setenv(URI, f"http://ann:{WRITTEN}@127.0.0.1:{opened.server_port}")
        store = open_store(tmp_path)
        with pytest.raises(TrackingError, match="ann has no permission for this") as error:
            TrackedRun(store, about())
        (asked,) = set(opened.asked)  # type: ignore[attr-defined]
    assert asked.startswith("Basic ")
    everything += [*traceback.format_exception(error.value), store.uri]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@127.0.0.1:9", "http://…@127.0.0.1:9"),
        ("postgresql://me:se/cret@db/optuna", "postgresql://…@db/optuna"),
        ("postgresql://me:se@cr\net@db/optuna", "postgresql://…@db/optuna"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    ],
)
def test_an_address_is_printed_without_its_password(address: str, shown: str) -> None:
    assert printable(address) == shown
