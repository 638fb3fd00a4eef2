"""Only verified files are kept, whatever a mirror does, and a failure gives reason and advice."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from samples import PROJECT

from mnist_lstm import UserError
from mnist_lstm.data import mirrors
from mnist_lstm.data.datasets import (
    DATASETS,
    FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Dataset,
    Published,
)
from mnist_lstm.data.idx import encode, read_pair
from mnist_lstm.data.mirrors import MirrorError, mirror_list

SOURCE = PROJECT / "src"
RNG = np.random.default_rng(0)
CONTENTS = {
    TRAIN_IMAGES: encode(RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)),
    TRAIN_LABELS: encode(RNG.integers(0, 10, 30, dtype=np.uint8)),
    TEST_IMAGES: encode(RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8)),
    TEST_LABELS: encode(RNG.integers(0, 10, 20, dtype=np.uint8)),
}
TINY = Dataset(
    name="tiny",
    classes=tuple("0123456789"),
    train_images=30,
    test_images=20,
    files={
        name: Published("sha256", hashlib.sha256(content).hexdigest(), len(content))
        for name, content in CONTENTS.items()
    },
)
BY_SIZE = sorted(FILES, key=lambda name: len(CONTENTS[name]))

Answer = Callable[[BaseHTTPRequestHandler, str], None]


def send(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def right(handler: BaseHTTPRequestHandler, name: str) -> None:
    send(handler, CONTENTS[name])


def status(code: int) -> Answer:
    return lambda handler, name: send(handler, b"an error", code)


def login_page(handler: BaseHTTPRequestHandler, name: str) -> None:
    send(handler, b"\n<!DOCTYPE html><title>Sign in</title>".ljust(len(CONTENTS[name])))


def half(handler: BaseHTTPRequestHandler, name: str) -> None:
    send(handler, CONTENTS[name][: len(CONTENTS[name]) // 2])


def half_of_what_it_says(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENTS[name])))
    handler.end_headers()
    handler.wfile.write(CONTENTS[name][: len(CONTENTS[name]) // 2])


def broken_chunk(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % len(CONTENTS[name]) + CONTENTS[name][:20])


def too_much(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENTS[name])
    try:
        while not handler.server.over.wait(0):
            handler.wfile.write(bytes(2**16))
    except OSError:  # the client went away, as it should
        handler.server.left.set()


def altered(handler: BaseHTTPRequestHandler, name: str) -> None:
    send(handler, CONTENTS[name][:-1] + bytes([CONTENTS[name][-1] ^ 1]))


def circle(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


def elsewhere(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", Path(__file__).as_uri())
    handler.end_headers()


def trickle(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    drip(handler, CONTENTS[name])


def trickle_of_headers(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.send_response(200)
    handler.flush_headers()
    drip(handler, b"X-Patience: " + b"z" * 60_000)


def trickle_of_interim_answers(handler: BaseHTTPRequestHandler, name: str) -> None:
    drip(handler, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def drip(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.server.dripping.set()
    try:
        for byte in content:
            handler.wfile.write(bytes([byte]))
            if handler.server.over.wait(0.02):
                return
    except OSError:
        pass


def silence(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.server.over.wait()


def not_http(handler: BaseHTTPRequestHandler, name: str) -> None:
    handler.wfile.write(b"220 mail ready\r\n")


class Server(ThreadingHTTPServer):
    """A server that answers each file in its own way and remembers the requests."""

    daemon_threads = True

    def __init__(self, answer: Answer, **answers: Answer) -> None:
        self.answer, self.answers = answer, {FILES[int(key[1])]: a for key, a in answers.items()}
        self.asked: list[str] = []
        self.over, self.dripping, self.left = (threading.Event() for _ in range(3))
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        threading.Thread(target=partial(self.serve_forever, 0.01), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        folder, name = self.path.rsplit("/", 1)
        assert folder == "/mnist"
        self.server.asked.append(name)
        self.server.answers.get(name, self.server.answer)(self, name)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server with one answer for all files; f0, f1 … are other answers for single FILES."""
    servers = []

    def start(answer: Answer, **answers: Answer) -> Server:
        servers.append(Server(answer, **answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder that holds the four files."""
    folder = tmp_path / "good mirror"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return folder


def fetch(raw: Path, *sources: str | Path) -> list[str]:
    lines: list[str] = []
    mirrors.fetch(TINY, raw, iter([str(source) for source in sources]), lines.append)
    return lines


def refused(raw: Path, source: str | Path) -> str:
    """Why the only mirror was skipped; the reason must be printed and be part of the error."""
    lines: list[str] = []
    with pytest.raises(MirrorError) as caught:
        mirrors.fetch(TINY, raw, [str(source)], lines.append)
    [line] = [line for line in lines if line.startswith("mirror ")]
    reason = line.removeprefix("mirror ")
    assert f"Tried: {reason}. Offline" in str(caught.value)
    return reason.removeprefix(f"{source}: ")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_server_gives_the_four_files(serve, raw):
    server = serve(right)
    lines = fetch(raw, server.url)
    assert contents(raw) == CONTENTS
    assert [line.split()[0] for line in lines] == BY_SIZE
    assert all(line.endswith(f" kB  from {server.url}") for line in lines)


def test_a_mirror_without_a_final_slash_is_the_same(serve, raw):
    fetch(raw, serve(right).url.rstrip("/"))
    assert contents(raw) == CONTENTS


@pytest.mark.parametrize("mirror", [str, Path.as_uri], ids=["path", "file URL"])
def test_a_folder_gives_the_four_files(good, raw, mirror):
    fetch(raw, mirror(good))
    assert contents(raw) == CONTENTS


BAD = {
    "404": (status(404), "HTTP status 404 Not Found"),
    "500": (status(500), "HTTP status 500 Internal Server Error"),
    "login page": (login_page, "a web page came in its place (a login or error page?)"),
    "altered": (altered, "SHA-256 is "),
    "half": (half, "expected {size} bytes, {half} came"),
    "broken off": (half_of_what_it_says, "expected {size} bytes, {half} came"),
    "broken chunk": (broken_chunk, "the connection broke off"),
    "too much": (too_much, "expected {size} bytes, more came"),
    "redirected in a circle": (circle, "HTTP status 302 Found"),
    "redirected to a file": (elsewhere, "HTTP status 302 Found"),
}


@pytest.mark.parametrize(("answer", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_and_the_next_mirror_asked(serve, good, raw, answer, reason):
    name = TRAIN_IMAGES
    size = len(CONTENTS[name])
    server = serve(right, f0=answer)
    lines = fetch(raw, server.url, good)
    assert contents(raw) == CONTENTS
    [line] = [line for line in lines if line.startswith("mirror ")]
    reason = reason.format(size=f"{size:,}", half=f"{size // 2:,}")
    assert line.startswith(f"mirror {server.url}: {name}: {reason}")
    assert lines[-1].endswith(f"from {good}")


@pytest.mark.parametrize("answer", [answer for answer, _ in BAD.values()], ids=BAD)
def test_bad_files_never_stay(serve, raw, answer):
    reason = refused(raw, serve(answer).url)
    assert reason.startswith(f"{BY_SIZE[0]}: ")
    assert reason.endswith("(and 3 more files)")
    assert contents(raw) == {}
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_no_more_is_read_than_the_known_size(serve, raw):
    server = serve(too_much)
    refused(raw, server.url)
    assert server.left.wait(5)


def test_the_digest_found_and_the_one_expected_are_told(good, raw):
    (good / TEST_LABELS).write_bytes(bytes(len(CONTENTS[TEST_LABELS])))
    found = hashlib.sha256(bytes(len(CONTENTS[TEST_LABELS]))).hexdigest()
    expected = TINY.files[TEST_LABELS].digest
    assert (
        refused(raw, good) == f"{TEST_LABELS}: SHA-256 is {found[:12]}…, expected {expected[:12]}…"
    )


def test_no_more_memory_than_twice_the_known_size(serve, raw):
    """This measures both sides: the server runs in this process and sends 64 KiB at a time."""
    size = 2**23
    large = Dataset("large", (), 30, 20, {TRAIN_IMAGES: Published("md5", "0" * 32, size)})
    server = serve(too_much)
    tracemalloc.start()
    try:
        with pytest.raises(MirrorError, match="expected 8,388,608 bytes, more came"):
            mirrors.fetch(large, raw, [server.url], lambda line: None)
        assert size < tracemalloc.get_traced_memory()[1] < 2 * size + 2**20
    finally:
        tracemalloc.stop()


def test_the_longest_time_of_a_bad_mirror_is_the_documented_one():
    def minutes(name: str) -> float:
        sizes = [file.size for file in DATASETS[name].files.values()]
        seconds = [mirrors.GRACE_SECONDS + s / mirrors.SLOWEST_BYTES_PER_SECOND for s in sizes]
        return sum(seconds) / 60

    assert 4.5 < minutes("mnist") <= 5
    assert 19 < minutes("fashion-mnist") == minutes("kmnist") <= 20
    for page in (PROJECT / "docs" / "datasets.md", Path(mirrors.__file__)):
        assert re.search(r"5 minutes[^.]* 20\b", page.read_text())


@pytest.mark.parametrize(
    "answer",
    [trickle, trickle_of_headers, trickle_of_interim_answers],
    ids=["content", "headers", "interim answers"],
)
def test_a_mirror_that_sends_slowly_reaches_the_deadline(serve, raw, monkeypatch, answer):
    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(mirrors, "SLOWEST_BYTES_PER_SECOND", 1e9)
    server = serve(answer)
    assert refused(raw, server.url) == "too slow: a file took more than 0.2 s"
    assert server.asked == BY_SIZE[:1]
    assert contents(raw) == {}


def test_the_deadline_grows_with_the_size(serve, raw, monkeypatch):
    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(mirrors, "SLOWEST_BYTES_PER_SECOND", 4.0 * len(CONTENTS[BY_SIZE[0]]))
    assert refused(raw, serve(silence).url) == "too slow: a file took more than 0.25 s"


def test_a_silent_mirror_runs_into_the_timeout_of_the_socket(serve, raw, monkeypatch):
    monkeypatch.setattr(mirrors, "SOCKET_SECONDS", 0.1)
    server = serve(silence)
    assert refused(raw, server.url) == "no answer within 0.1 s"
    assert server.asked == BY_SIZE[:1]


def test_a_mirror_that_refuses_connections_is_passed_over(good, raw):
    mirror = closed_port()
    lines = fetch(raw, mirror, good)
    assert lines[0] == f"mirror {mirror}: cannot be reached (Connection refused)"
    assert contents(raw) == CONTENTS


def test_what_does_not_speak_http_is_passed_over(serve, raw):
    assert refused(raw, serve(not_http).url) == "its answer is not HTTP"


def test_a_folder_that_hangs_runs_into_the_deadline(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.1)
    os.mkfifo(tmp_path / BY_SIZE[0])
    assert refused(raw, tmp_path).startswith("too slow: ")
    os.close(os.open(tmp_path / BY_SIZE[0], os.O_RDWR | os.O_NONBLOCK))  # lets the reader go


def test_a_read_that_was_given_up_reports_no_more(monkeypatch):
    reported, given_up, ended = [], threading.Event(), threading.Event()

    def read(mirror, name, limit, progress):
        try:
            progress(name, 1, limit)
            given_up.wait()
            progress(name, 2, limit)
        finally:
            ended.set()

    monkeypatch.setattr(mirrors, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(mirrors, "_read", read)
    with pytest.raises(mirrors._Down, match="too slow"):
        mirrors._obtain(
            "mirror", "file", Published("md5", "0" * 32, 1), lambda *at: reported.append(at)
        )
    given_up.set()
    assert ended.wait(60)
    assert reported == [("file", 1, 2)]


UNUSABLE = {
    "ftp": ("ftp://host/mnist", "expected a folder, a file:// URL or an http(s):// URL"),
    "relative file URL": (
        "file://shared/mnist",
        "expected an absolute path in a file:// URL, as in file:///path/to/folder",
    ),
    "space": ("http://127.0.0.1/a b", "not a usable URL"),
    "port": ("http://127.0.0.1:x/", "not a usable URL"),
    "bracket": ("http://[1/", "not a URL (Invalid IPv6 URL)"),
}


@pytest.mark.parametrize(("mirror", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_mirror_that_cannot_be_used_says_why(raw, mirror, reason):
    assert refused(raw, mirror) == reason


def test_a_password_is_not_printed(raw):
    with pytest.raises(MirrorError) as caught:
        fetch(raw, "https://me:secret@127.0.0.1/mnist")
    assert "https://…@127.0.0.1/mnist: a user name or password" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:se/cr@et@host/mnist", "https://…@host/mnist"),
        ("https://me@host/mnist", "https://…@host/mnist"),
        ("https://host/package@1.0/mnist", "https://host/package@1.0/mnist"),
    ],
)
def test_an_address_is_printed_without_its_password(address, shown):
    assert mirrors._shown(address) == shown


def test_a_data_set_that_torchvision_does_not_have_has_mirrors_of_its_own(tmp_path):
    assert list(mirror_list(TINY, None, tmp_path)) == []
    its_own = replace(TINY, mirrors=("https://a/", "https://b/"))
    assert list(mirror_list(its_own, "/folder", tmp_path)) == ["/folder", *its_own.mirrors]


def test_without_a_mirror_fetch_says_so(raw):
    with pytest.raises(MirrorError, match=r"Tried: none\. Offline, set MNIST_MIRROR to"):
        fetch(raw)


def test_a_user_that_does_not_exist_has_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"^MNIST_MIRROR=~nobody123/mnist: there is no such user"):
        next(mirror_list(DATASETS["mnist"], "~nobody123/mnist", tmp_path))


def test_folders_that_are_not_there_say_so(tmp_path, raw):
    assert refused(raw, tmp_path / "nowhere") == "no such folder"
    (tmp_path / "file").touch()
    assert refused(raw, tmp_path / "file") == "not a folder"
    (tmp_path / "empty").mkdir()
    reason = f"{BY_SIZE[0]}: No such file or directory (and 3 more files)"
    assert refused(raw, tmp_path / "empty") == reason


def test_only_what_is_missing_is_asked_of_the_next_mirror(serve, raw):
    first = serve(right, f0=status(404), f2=half)
    second = serve(right, f2=status(404))
    third, fourth = serve(right), serve(right)
    lines = fetch(raw, first.url, second.url, third.url, fourth.url)
    assert contents(raw) == CONTENTS
    assert first.asked == BY_SIZE
    assert second.asked == [name for name in BY_SIZE if name in (TRAIN_IMAGES, TEST_IMAGES)]
    assert third.asked == [TEST_IMAGES]
    assert fourth.asked == []
    assert len([line for line in lines if line.startswith("mirror ")]) == 2


def test_what_was_verified_stays_when_the_rest_fails(serve, raw):
    with pytest.raises(
        MirrorError, match=f"^tiny: no mirror has a correct copy of {TEST_IMAGES}, "
    ):
        fetch(raw, serve(right, f0=half, f2=altered).url)
    assert contents(raw) == {name: CONTENTS[name] for name in (TRAIN_LABELS, TEST_LABELS)}


def test_verified_files_are_kept_without_a_download(good, raw):
    fetch(raw, good)
    times = {path: path.stat().st_mtime_ns for path in raw.iterdir()}

    def none() -> Iterator[str]:
        pytest.fail("a mirror was asked for")
        yield ""

    lines: list[str] = []
    mirrors.fetch(TINY, raw, none(), lines.append)
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == times
    assert all(line.endswith("  already there") for line in lines)


def test_a_file_there_that_does_not_verify_goes_even_if_no_mirror_has_it(raw, tmp_path):
    raw.mkdir(parents=True)
    (raw / TRAIN_IMAGES).write_bytes(bytes(len(CONTENTS[TRAIN_IMAGES])))
    (raw / TRAIN_LABELS).write_bytes(CONTENTS[TRAIN_LABELS])
    with pytest.raises(MirrorError):
        fetch(raw, tmp_path / "nowhere")
    assert contents(raw) == {TRAIN_LABELS: CONTENTS[TRAIN_LABELS]}


def test_when_all_fail_one_line_lists_every_mirror_and_what_to_do_offline(serve, raw, tmp_path):
    server, closed, folder = serve(status(404)), closed_port(), tmp_path / "nowhere"
    with pytest.raises(MirrorError) as caught:
        fetch(raw, folder, server.url, closed)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{folder}: no such folder; {server.url}: {BY_SIZE[0]}: HTTP status 404" in message
    assert f"; {closed}: cannot be reached (Connection refused). " in message
    assert all(name in message for name in FILES)
    assert "MNIST_MIRROR" in message
    assert "`cp recipes/quick.yaml params.yaml`" in message


def test_a_full_disk_is_not_blamed_on_the_mirror(good, raw, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(mirrors, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(raw, good)


def killed(tmp_path: Path, raw: Path, source: str, before: str = "") -> subprocess.Popen[bytes]:
    """A process that fetches into `raw` after it ran the code `before`."""
    script = """
        import os, signal, sys
        from pathlib import Path
        from mnist_lstm.data.datasets import Dataset, Published
        from mnist_lstm.data.mirrors import fetch
        {before}
        tiny = Dataset("tiny", (), 30, 20, {files})
        fetch(tiny, Path(sys.argv[1]), [sys.argv[2]], print)
    """
    code = textwrap.dedent(script).format(before=before, files=dict(TINY.files))
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.Popen([sys.executable, "-c", code, raw, source], env=environment)


def test_a_kill_in_the_middle_of_a_download_leaves_only_verified_files(serve, tmp_path, raw):
    server = serve(trickle, **{f"f{FILES.index(BY_SIZE[0])}": right})
    with killed(tmp_path, raw, server.url) as process:
        assert server.dripping.wait(30)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert server.asked == BY_SIZE[:2]
    assert contents(raw) == {BY_SIZE[0]: CONTENTS[BY_SIZE[0]]}
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_a_kill_in_the_middle_of_writing_leaves_a_draft_that_the_next_run_clears(
    good, tmp_path, raw
):
    before = "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    with killed(tmp_path, raw, str(good), before) as process:
        process.wait(30)
    assert process.returncode == -signal.SIGKILL
    assert contents(raw) == {}
    assert f".{BY_SIZE[0]}.{process.pid}.draft" in {path.name for path in raw.parent.iterdir()}
    fetch(raw, good)
    assert contents(raw) == CONTENTS
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_the_mirrors_are_the_given_one_then_torchvisions(tmp_path, monkeypatch):
    fake = ModuleType("torchvision.datasets")
    fake.MNIST = SimpleNamespace(mirrors=["https://a/", "https://b/"])  # type: ignore[attr-defined]
    fake.KMNIST = SimpleNamespace(mirrors=["https://c/"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "root"

    def first(given: str | None) -> str:
        found, *rest = mirror_list(DATASETS["mnist"], given, root)
        assert rest == ["https://a/", "https://b/"]
        return found

    for given in (None, ""):
        assert list(mirror_list(DATASETS["mnist"], given, root)) == ["https://a/", "https://b/"]
    assert list(mirror_list(DATASETS["kmnist"], "/folder", root)) == ["/folder", "https://c/"]
    assert first("../shared/mnist") == str(tmp_path / "shared" / "mnist")
    assert first("/elsewhere") == "/elsewhere"
    assert first("~/mnist") == str(tmp_path / "home" / "mnist")
    for url in ("file:///folder", "http://host/mnist", "https://host/"):
        assert first(url) == url


def test_torchvision_is_not_imported_where_the_given_mirror_has_everything(good, raw, tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from mnist_lstm.data.datasets import Dataset, Published
        from mnist_lstm.data.mirrors import fetch, mirror_list
        heavy = {"numpy", "torch", "torchvision", "sklearn", "urllib.request"} & set(sys.modules)
        assert not heavy, heavy
        tiny = Dataset("tiny", (), 30, 20, FILES)
        sources = mirror_list(tiny, sys.argv[2], Path.cwd())
        fetch(tiny, Path(sys.argv[1]), sources, lambda line: None)
        assert "torchvision" not in sys.modules
    """.replace("FILES", repr(dict(TINY.files)))
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code, raw, good], env=environment, check=True)
    assert contents(raw) == CONTENTS


@pytest.mark.skipif("MNIST_MIRROR" not in os.environ, reason="MNIST_MIRROR is not set")
def test_real_mnist_is_fetched_and_read(raw):
    mnist = DATASETS["mnist"]
    mirror = next(mirror_list(mnist, os.environ["MNIST_MIRROR"], PROJECT))
    mirrors.fetch(mnist, raw, [mirror], lambda line: None)
    images, labels = read_pair(raw / TRAIN_IMAGES, raw / TRAIN_LABELS, len(mnist.classes))
    assert images.shape == (mnist.train_images, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    images, labels = read_pair(raw / TEST_IMAGES, raw / TEST_LABELS, len(mnist.classes))
    assert images.shape == (mnist.test_images, 28, 28)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


BY_MD5 = Dataset(
    name="by MD5",
    classes=TINY.classes,
    train_images=30,
    test_images=20,
    files={
        name: Published("md5", hashlib.md5(content).hexdigest(), len(content) + 5, exact=False)
        for name, content in CONTENTS.items()
    },
)


def test_files_of_unknown_size_are_verified_by_md5_and_kept(good, raw):
    lines: list[str] = []
    mirrors.fetch(BY_MD5, raw, [str(good)], lines.append)
    assert contents(raw) == CONTENTS
    assert lines[-1] == f"{TRAIN_IMAGES}        2.0 kB  from {good}"
    mirrors.fetch(BY_MD5, raw, [], lines.append)
    assert all(line.endswith("  already there") for line in lines[-4:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:-1] + b"?", "MD5 is "),
        (lambda content: content[:-1], "MD5 is "),
        (lambda content: content + bytes(5), "MD5 is "),
        (lambda content: content + bytes(6), "expected at most {bound:,} bytes, more came"),
    ],
    ids=["altered", "shorter", "longer", "too long"],
)
def test_files_of_unknown_size_that_are_wrong_never_stay(good, raw, change, reason):
    for name, content in CONTENTS.items():
        (good / name).write_bytes(change(content))
    with pytest.raises(MirrorError) as caught:
        mirrors.fetch(BY_MD5, raw, [str(good)], lambda line: None)
    name = BY_SIZE[0]
    assert f"{good}: {name}: {reason.format(bound=BY_MD5.files[name].size)}" in str(caught.value)
    raw.mkdir(exist_ok=True)
    assert contents(raw) == {}
