"""The server as it is asked over a socket, around a small model of images of 8 rows of 8 pixels."""

import asyncio
import dataclasses
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import uvicorn
from browser import browser, needs_chromium
from hypothesis import given
from hypothesis import strategies as st
from mutations import DRAWN, edited, fuzz, some_edits
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from samples import small_model
from sklearn.datasets import load_digits

from mnist_lstm import UserError
from mnist_lstm.data import photo
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import Classifier, RowLSTM, infer
from mnist_lstm.runs import demonstration, servable
from mnist_lstm.runs.predictor import Predictor
from mnist_lstm.serving.app import application, main, options
from mnist_lstm.serving.classifier import TOGETHER, BusyClassifier
from mnist_lstm.serving.patience import PatientProtocol
from mnist_lstm.serving.request import LARGEST, PICTURE, check, most_bytes
from mnist_lstm.views.draw_page import page

DIGITS = tuple("0123456789")
PIXELS = (load_digits().images[:40] * 255 / 16).round().astype(np.uint8)
BODY = json.dumps({"inputs": PIXELS[:2].tolist()}).encode()
JSON = "application/json"
MOST = most_bytes(8, 8)


def small(rows: int = 8, **settings: Any) -> RowLSTM:
    torch.manual_seed(0)
    size = {"input_size": 8, "num_classes": 10, "hidden_size": 12, "num_rows": rows}
    return small_model(**size, **settings).eval()


def made(cell: str = "lstm", reads: str = "rows") -> servable.Servable:
    model = small(cell=cell, reads=reads)
    with torch.no_grad():
        model.head.weight.mul_(20)  # so that it is sure of some of its answers
    chosen = Predictor(model, "a model of the tests", "digits", (8, 8), DIGITS)
    labels = torch.from_numpy(load_digits().target[:40].astype(np.uint8))
    test = Sequences(torch.from_numpy(PIXELS), labels, 10, "digits", {})
    text = page("Draw", demonstration.data(chosen, 32, test), served=True)
    usual = servable.Usual(ink=float(PIXELS.mean()) / 255, unsure=0.25)
    return servable.Servable(model, chosen.source, "digits", (8, 8), DIGITS, usual, text)


SERVED = made()
OURS = Classifier(SERVED.model)


@contextmanager
def serving(served: servable.Servable) -> Iterator[int]:
    app = application(served, ["digits.example.org"])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options(app)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(SERVED) as found:
        yield found


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    Image.fromarray(image).save(file := io.BytesIO(), kind)
    return file.getvalue()


def larger(image: np.ndarray) -> np.ndarray:
    """Dark on light, and with a margin, as people draw."""
    return 255 - np.pad(image.repeat(9, axis=0).repeat(9, axis=1), 20)


PICTURE_FILE = png(PIXELS[3])


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


def said(answer: bytes) -> dict:
    return json.loads(answer.split(b"\r\n\r\n")[1])


def ours(images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return OURS(torch.from_numpy(images)).numpy()


def test_images_are_answered(port: int) -> None:
    answer = asked(port)
    assert (status(answer), list(said(answer))) == (200, ["predictions"])
    np.testing.assert_allclose(said(answer)["predictions"], ours(PIXELS[:2]), atol=1e-6, rtol=0)


def test_a_large_batch_gets_the_same_answers(port: int) -> None:
    many = np.concatenate([PIXELS] * 30)
    answer = asked(port, json.dumps({"inputs": many.tolist()}).encode())
    np.testing.assert_allclose(said(answer)["predictions"], ours(many), atol=1e-6, rtol=0)


def test_two_large_batches_are_parsed_at_a_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parsing, at_once = [], []

    def check_slowly(*what: Any) -> Any:
        parsing.append(what)
        at_once.append(len(parsing))
        time.sleep(0.3)  # for the others to come
        parsing.remove(what)
        return check(*what)

    monkeypatch.setattr("mnist_lstm.serving.app.check", check_slowly)
    body = BODY.ljust(2**16)
    with ThreadPoolExecutor(5) as clients:
        answers = list(clients.map(lambda _: asked(port, body), range(5)))
    assert [status(answer) for answer in answers] == [200] * 5
    assert max(at_once) == 2


def predicted(port: int, body: bytes, query: str = "", **headers: str) -> bytes:
    return asked(port, body, f"/predict{query}", **{"Content_Type": "image/png", **headers})


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_read_as_predict_reads_it(port: int, kind: str, tmp_path: Path) -> None:
    for number, image in enumerate(PIXELS[:10]):
        picture = png(larger(image), kind)
        (file := tmp_path / f"{number}.{kind.lower()}").write_bytes(picture)
        pixels = photo.read(file, photo.form_of("digits", 8, 8)).pixels
        logits = SERVED.model.after_each_row(torch.from_numpy(pixels)[None])[0]
        expected = logits.detach().double().softmax(dim=1).numpy()
        answer = said(predicted(port, picture, Content_Type=f"image/{kind.lower()}"))
        assert list(answer) == ["class", "probability", "probabilities", "doubts"]
        assert answer["class"] == str(expected[-1].argmax())
        assert answer["probability"] == pytest.approx(expected[-1].max(), abs=1e-6)
        got = list(answer["probabilities"].values())
        np.testing.assert_allclose(got, expected[-1], atol=1e-6, rtol=0)

        answer = said(predicted(port, picture, "?belief=rows&image=pixels"))
        got = [list(row.values()) for row in answer["rows"]]
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)
        assert answer["pixels"] == pixels.tolist()


def test_a_doubt_is_passed_on(port: int) -> None:
    two = np.concatenate([larger(PIXELS[0]), larger(PIXELS[1])], axis=1)
    (doubt,) = said(predicted(port, png(two)))["doubts"]
    assert doubt == "2 large things are on it, and the largest is read"


REFUSED = {
    "nothing": (b"", "the body is empty; send a picture"),
    "no picture": (b"GIF89a", "the picture: not a PNG or JPEG image"),
    "cut off": (png(larger(PIXELS[0]))[:-200], "the picture: damaged ("),
    "blank": (png(np.full((30, 30), 200, np.uint8)), "the picture: blank: all of it is of about"),
    "too large": (
        PICTURE_FILE[:16] + b"\x00\x00\xff\xff" * 2 + PICTURE_FILE[24:],
        "the picture: ",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_picture_is_refused_in_words_of_predict(
    port: int, what: str, tmp_path: Path
) -> None:
    body, words = REFUSED[what]
    answer = predicted(port, body)
    assert status(answer) == 400
    assert said(answer)["message"].startswith(words)
    if body:
        (file := tmp_path / "file").write_bytes(body)
        with pytest.raises(UserError) as error:
            photo.read(file, photo.form_of("digits", 8, 8))
        assert said(answer)["message"] == f"the picture: {str(error.value)[len(f'{file}: ') :]}"


def test_another_content_type_or_query_is_refused_in_words(port: int) -> None:
    answer = predicted(port, PICTURE_FILE, Content_Type="image/webp")
    assert status(answer) == 415
    assert said(answer)["message"] == (
        "the Content-Type must be image/png or image/jpeg, is image/webp"
    )
    answer = predicted(port, PICTURE_FILE, "?belief=all")
    assert (status(answer), said(answer)["message"]) == (
        400,
        'the query may have belief=rows and image=pixels, has "belief=all"',
    )
    answer = asked(port, Content_Type="text/csv")
    assert status(answer) == 415
    assert said(answer)["message"] == "the Content-Type must be application/json, is text/csv"


def test_images_that_wait_are_classified_together(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    together = BusyClassifier._together
    monkeypatch.setattr(
        BusyClassifier,
        "_together",
        lambda self, images: passes.append(len(images)) or together(self, images),
    )
    busy, images = BusyClassifier(SERVED), torch.from_numpy(PIXELS)

    async def all_at_once() -> list[torch.Tensor]:
        return await asyncio.gather(*(busy.logits(image[None]) for image in images))

    found = torch.cat(asyncio.run(all_at_once()))
    torch.testing.assert_close(found, infer(SERVED.model, images, 40), rtol=0, atol=1e-5)
    assert passes == [TOGETHER, 40 - TOGETHER]


def test_a_failure_is_that_of_its_request_and_the_next_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, images = BusyClassifier(SERVED), torch.from_numpy(PIXELS)
    with pytest.raises(RuntimeError):
        asyncio.run(busy.logits(images[:1, :, :3]))
    assert asyncio.run(busy.logits(images[:1])).shape == (1, 10)


def metrics(port: int) -> dict[tuple[str, ...], float]:
    answer = sent(port, head("/metrics", "GET"))
    assert b"content-type: text/plain; version=" in answer
    text = answer.partition(b"\r\n\r\n")[2].decode()
    return {
        (sample.name.removeprefix("mnist_lstm_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_refusals_and_what_is_on_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(made()) as port:
        before = metrics(port)
        assert before["expected", "ink"] == pytest.approx(PIXELS.mean() / 255)
        assert before["expected", "unsure"] == 0.25
        assert np.isnan(before["recent", "ink"])
        asked(port, json.dumps({"inputs": PIXELS[:30].tolist()}).encode())
        asked(port, b"no JSON")
        predicted(port, b"no picture")
        predicted(port, PICTURE_FILE, Content_Type="text/csv")
        asked(port, path="/made/up")
        asked(port, Host="evil.example.org")
        sent(port, head("/predict", Content_Type="image/png", Content_Length=PICTURE + 1))
        assert status(sent(port, b"GET\r\n\r\n")) == 400
        with monkeypatch.context() as hurried:
            hurried.setattr(PatientProtocol, "seconds", 0.1)
            half = head(Content_Type=JSON, Content_Length=len(BODY)) + BODY[:9]
            for start in (b"", b"GET /ping HT", half):
                sent(port, start)
        after = metrics(port)
    answers, most = ours(PIXELS[:30]).argmax(axis=1), ours(PIXELS[:30]).max(axis=1)
    assert after["requests_total", "/invocations", "200"] == 1
    assert after["request_seconds_count", "/predict"] == 3
    assert {key[1:]: value for key, value in after.items() if key[0] == "refusals_total"} == {
        ("images", "/invocations"): 1,
        ("host", "/invocations"): 1,
        ("picture", "/predict"): 1,
        ("content type", "/predict"): 1,
        ("too large", "/predict"): 1,
        ("path", "other"): 1,
        ("malformed", "other"): 1,
        ("too slow", "other"): 1,
        ("broken off", "/invocations"): 1,
    }
    for name in DIGITS:
        assert after["answers_total", name] == (answers == int(name)).sum()
    assert after["unsure_total",] == (most < servable.UNSURE).sum() > 0
    assert after["recent", "unsure"] == pytest.approx((most < servable.UNSURE).mean())
    assert after["recent", "ink"] == pytest.approx(PIXELS[:30].mean() / 255)
    assert after["image_ink_count",] == 30


def test_the_page_has_its_policy_in_a_header_too(port: int) -> None:
    answer = sent(port, head("/", "GET"))
    (policy,) = re.findall(rb"content-security-policy: (.*)\r\n", answer)
    assert policy.startswith(b"default-src 'none'; script-src 'sha256-")
    assert policy.endswith(b"; frame-ancestors 'none'")
    assert b"connect-src 'self';" in policy
    assert b"unsafe" not in policy


@needs_chromium
def test_pictures_are_drawn_or_dropped_on_the_page(port: int, tmp_path: Path) -> None:
    (file := tmp_path / "four.png").write_bytes(png(larger(PIXELS[4])))
    pixels = photo.read(file, photo.form_of("digits", 8, 8)).pixels
    (wrong := tmp_path / "wrong.png").write_bytes(b"no picture")
    address = f"http://127.0.0.1:{port}/"
    with browser(tmp_path / "browser") as opened:
        opened.open(address)

        def wait(until: str) -> None:
            ready = f"(function wait(ok) {{ {until} ? ok() : setTimeout(wait, 20, ok) }})"
            opened.evaluate(f"new Promise({ready}).then(() => null)")

        def choose(path: Path, until: str) -> None:
            document = opened.send("DOM.getDocument")["root"]["nodeId"]
            found = opened.send("DOM.querySelector", nodeId=document, selector="#picture")["nodeId"]
            opened.send("DOM.setFileInputFiles", files=[str(path)], nodeId=found)
            wait(until)

        choose(wrong, "problem.textContent.startsWith('Refused')")
        assert opened.evaluate("problem.textContent") == (
            "Refused: the picture: not a PNG or JPEG image."
        )
        # the answer to an earlier picture comes later, and does not count
        opened.evaluate(
            "var fetched = fetch, answered = 0; fetch = async (address, { signal, ...how }) => {"
            " const number = answered++, answer = await fetched(address, how);"
            " await new Promise((done) => setTimeout(done, number ? 0 : 500));"
            " answered += 10; return answer }; null"
        )
        choose(wrong, "problem.textContent === 'Reading it …'")
        choose(file, "answered > 20")
        opened.evaluate("fetch = fetched; null")
        choose(file, "problem.textContent === '' && shown?.label === null")
        assert opened.evaluate("shown.pixels") == pixels.flatten().tolist()
        belief = opened.evaluate("shown.beliefs.at(-1)")
        np.testing.assert_allclose(belief, ours(pixels[None])[0], atol=1e-5)
        # what is drawn meanwhile stays
        opened.evaluate(
            "var signals = [], waits = []; fetch = (address, { signal, ...how }) =>"
            " new Promise((done) => { signals.push(signal);"
            " waits.push(() => { const answer = fetched(address, how);"
            " done(answer); return answer.then(() => null) }) }); null"
        )
        choose(file, "waits.length === 1")
        place = "(({x, y, width}) => [x, y, width])(canvas.getBoundingClientRect())"
        x, y, width = opened.evaluate(place)
        opened.point("mouse", 0, x + width / 2, y + width / 3)
        opened.point("mouse", 1, x + width / 2, y + width / 2)
        assert opened.evaluate("[problem.textContent, signals[0].aborted]") == ["", True]
        opened.evaluate("waits[0]()")
        assert opened.evaluate("[strokes.length, drawn]") == [1, True]
        opened.point("mouse", 2, x + width / 2, y + width / 2)
        opened.evaluate("fetch = fetched; null")
        # what was said of a picture goes when an example is chosen
        choose(wrong, "problem.textContent.startsWith('Refused')")
        opened.evaluate("document.querySelector('.strip button').click()")
        assert opened.evaluate("problem.textContent") == ""
        # a picture of another kind is not sent
        asked = len(opened.requests)
        for kind, what in (("image/webp", "a WEBP"), ("image/svg+xml", "a SVG"), ("text/x", "no")):
            opened.evaluate(f"send(new Blob(['a'], {{ type: '{kind}' }}))")
            said = f"This is {what} picture; the page takes PNG and JPEG."
            assert opened.evaluate("problem.textContent") == said
        assert len(opened.requests) == asked
        opened.evaluate("send(new Blob(['a']))")  # of no kind that the browser knows
        assert opened.evaluate("problem.textContent") == (
            "Refused: the picture: not a PNG or JPEG image."
        )
        # as if it was dragged there
        content = f"new Uint8Array({list(file.read_bytes())})"
        opened.evaluate(
            "clear(); var dataTransfer = new DataTransfer(); "
            f"dataTransfer.items.add(new File([{content}], 'a.png', {{type: 'image/png'}})); "
            "dispatchEvent(new DragEvent('drop', { dataTransfer })); null"
        )
        wait("shown")
        assert opened.evaluate("shown.pixels") == pixels.flatten().tolist()
        refused = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
        assert opened.complaints == [refused] * 4
        assert {urllib.parse.urlsplit(each).netloc for each in opened.requests} == {
            f"127.0.0.1:{port}"
        }
        assert {each.removeprefix(address) for each in opened.requests} == {
            "",
            "predict?image=pixels",
        }
        # the server has begun anew, with a model of larger images
        other = Predictor(small(rows=6), "a model of the tests", "digits", (6, 8), DIGITS)
        text = page("Draw", demonstration.data(other, 32, None), served=True)
        with serving(dataclasses.replace(SERVED, page=text)) as another:
            opened.open(f"http://127.0.0.1:{another}/")
            choose(file, "problem.textContent.startsWith('The') || shown")
            said = "The server has another model now; load the page again."
            assert opened.evaluate("[problem.textContent, shown]") == [said, None]


def test_an_exported_model_is_the_same_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    SERVED.write(folder := tmp_path / "served")
    again = servable.read(folder)
    for entry in dataclasses.fields(servable.Servable):
        if entry.name != "model":
            assert getattr(again, entry.name) == getattr(SERVED, entry.name)
    weights = again.model.state_dict()
    for name, weight in SERVED.model.state_dict().items():
        assert torch.equal(weights[name], weight)
    made("gru").model.save(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"not the model that about\.json names"):
        servable.read(folder)
    (folder / "about.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        servable.read(folder)
    with pytest.raises(UserError, match="No such file or directory; `mnist-lstm export` makes"):
        servable.read(tmp_path / "other")


def test_the_largest_request_is_as_python_writes_it() -> None:
    body = json.dumps({"inputs": [[[255] * 8] * 8] * LARGEST}).encode()
    assert len(body) <= MOST < len(body) + 10


LIMITS = {"/invocations": (JSON, MOST), "/predict": ("image/png", PICTURE)}


@pytest.mark.parametrize("path", LIMITS)
def test_a_huge_body_is_refused_at_once_and_takes_no_memory(port: int, path: str) -> None:
    kind, _ = LIMITS[path]
    before = psutil.Process().memory_info().rss
    assert status(sent(port, head(path, Content_Type=kind, Content_Length=267_000_000))) == 413
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    start = head(path, Content_Type=kind, Transfer_Encoding="chunked")
    assert status(sent(port, start, *[chunk] * 267)) == 413
    assert psutil.Process().memory_info().rss - before < 120_000_000


def test_a_larger_one_is_refused_before_it_is_sent(port: int) -> None:
    length = MOST + 1
    answer = sent(port, head(Content_Type=JSON, Content_Length=length))
    assert status(answer) == 413
    assert said(answer)["message"].startswith("the body is larger than ")
    assert status(asked(port, BODY.ljust(length - 1))) == 200


def test_a_larger_one_in_chunks_is_refused_while_it_comes(port: int) -> None:
    chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    chunks = [chunk] * (MOST // 2**16 + 1)  # and no end
    start = head(Content_Type=JSON, Transfer_Encoding="chunked")
    assert status(sent(port, start, *chunks)) == 413


HALF = head(Content_Type=JSON, Content_Length=len(BODY)) + BODY[:9]


@pytest.mark.parametrize(
    ("start", "answers"),
    [
        (b"", 0),
        (b"GET /ping HT", 0),
        (HALF, 0),
        (head("/ping", "GET", Connection="keep-alive") + HALF, 1),
    ],
)
def test_a_request_that_does_not_come_whole_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, start: bytes, answers: int
) -> None:
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    assert sent(port, start).count(b"HTTP/1.1 ") == answers


def test_an_answer_that_is_not_taken_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is larger than what the system keeps for a client that does not read."""
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    closed = threading.Event()
    lost = PatientProtocol.connection_lost
    monkeypatch.setattr(
        PatientProtocol, "connection_lost", lambda *given: lost(*given) or closed.set()
    )
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head("/", "GET") * 100)
        assert closed.wait(60)


def test_a_short_answer_that_is_not_taken_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    closed, transports = threading.Event(), list[asyncio.Transport]()
    made, lost = PatientProtocol.connection_made, PatientProtocol.connection_lost

    def connected(protocol: PatientProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(protocol, transport)
        transports.append(transport)

    monkeypatch.setattr(PatientProtocol, "connection_made", connected)
    monkeypatch.setattr(
        PatientProtocol, "connection_lost", lambda *given: lost(*given) or closed.set()
    )
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        while not transports or not transports[0].get_write_buffer_size():
            connection.sendall(head("/ping", "GET", Connection="keep-alive"))
            time.sleep(0.001)
        assert transports[0].get_write_buffer_size() < 2**16  # where asyncio itself would pause
        assert closed.wait(60)


def test_a_request_that_is_cut_off_by_the_end_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = threading.Event()

    async def endless(*_: object) -> None:
        asked_for.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr("mnist_lstm.serving.app.LAST_SECONDS", 0.1)
    monkeypatch.setattr(BusyClassifier, "logits", endless)
    with ThreadPoolExecutor(1) as client:
        with serving(SERVED) as port:
            answer = client.submit(asked, port)
            assert asked_for.wait(60)
        cut_off = answer.result()
    assert status(cut_off) == 503
    assert said(cut_off)["message"] == "the server ends"


def test_the_end_does_not_wait_for_whoever_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client asks again and again, and the next answer cannot begin."""
    monkeypatch.setattr("mnist_lstm.serving.app.LAST_SECONDS", 1)
    monkeypatch.setattr("mnist_lstm.serving.patience.AT_THE_END", 0.1)
    transports, made = list[asyncio.Transport](), PatientProtocol.connection_made
    monkeypatch.setattr(
        PatientProtocol,
        "connection_made",
        lambda *given: made(*given) or transports.append(given[1]),
    )
    with socket.socket() as connection, serving(SERVED) as port:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head("/", "GET", Connection="keep-alive") * 100)
        while not transports or not transports[0].get_write_buffer_size():
            time.sleep(0.001)
    assert [line for line in caplog.records if line.exc_info] == []


ENDLESS = """
import sys, time
from mnist_lstm.serving import app, classifier

def infer(*_):
    print("classifies", flush=True)
    time.sleep(3600)

app.LAST_SECONDS, classifier.infer = 0.1, infer
app.main(sys.argv[1:])
"""


def test_ctrl_c_does_not_wait_for_the_classifier(tmp_path: Path) -> None:
    SERVED.write(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-c", ENDLESS, str(tmp_path), "127.0.0.1", str(port)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        ThreadPoolExecutor(1) as client,
    ):
        try:
            assert server.stdout
            assert server.stdout.readline().endswith("; Ctrl-C ends it\n")
            while psutil.Process(server.pid).net_connections() == []:
                time.sleep(0.01)
            answer = client.submit(asked, port)
            assert server.stdout.readline() == "classifies\n"
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
            assert status(answer.result()) == 503
        finally:
            server.kill()


def test_a_fault_is_said_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with serving(SERVED) as port:
        monkeypatch.setattr(BusyClassifier, "logits", fail)
        answer = asked(port)
    assert status(answer) == 500
    assert said(answer)["message"] == "the server has failed; its log says why"


def test_an_answer_may_take_longer_than_a_request(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "seconds", 0.1)
    together = BusyClassifier._together
    monkeypatch.setattr(
        BusyClassifier, "_together", lambda *given: time.sleep(0.5) or together(*given)
    )
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
def test_it_says_that_it_is_there(port: int, path: str) -> None:
    assert status(sent(port, head(path, "GET"))) == 200


def test_half_a_surrogate_pair_is_refused_in_words(port: int) -> None:
    answer = asked(port, b'{"inputs": "\\ud800"}')
    assert status(answer) == 400
    (message,) = {json.loads(answer.split(b"\r\n\r\n")[1])["message"]}
    assert message.endswith('it is the text "\ud800"')


def test_a_path_that_only_looks_other_is_checked_too(port: int) -> None:
    answer = asked(port, BODY.replace(b"255", b"256"), "/invocations%0A")
    assert status(answer) in (400, 404)
    assert b"predictions" not in answer


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
SMALL = json.dumps({"inputs": [PIXELS[0].tolist()]}).encode()
BODIES = st.builds(lambda edits: edited(SMALL, [1, 12, 13, 14], edits), some_edits(WORTH))
CHUNKS = [16, 20, 24, 25, 29, 33, 37, 41]  # places in a PNG: its sizes, its mode, its data
PICTURES = st.builds(
    lambda file, edits: edited(file, CHUNKS, edits),
    st.sampled_from([PICTURE_FILE, png(larger(PIXELS[5]), "JPEG"), png(PIXELS[1])[:60]]),
    some_edits([b"\x00", b"\xff", b"\xff\xd8", b"IDAT", b"IEND", b"\x7f\xff\xff\xff", b"acTL"]),
) | DRAWN.map(png)
TYPES = [
    JSON,
    "image/png",
    "image/jpeg",
    "text/csv",
    f"{JSON}; charset=x",
    f"{JSON};;=",
    "",
    "\xff",
]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content_Type": st.sampled_from(TYPES),
        "Content_Length": st.sampled_from([0, 1, 10**9, 10**30, -1, "x", "1, 2"]),
        "Transfer_Encoding": st.sampled_from(["chunked", "gzip", "x"]),
        "Host": st.sampled_from(["localhost:x", "[::1]", "a b", "", "127.0.0.1, 127.0.0.1"]),
        "Expect": st.sampled_from(["100-continue", "x"]),
        "Content_Encoding": st.just("gzip"),
        "Upgrade": st.just("websocket"),
        "Connection": st.just("upgrade"),
    },
)
PATHS = [
    *("/invocations", "/invocations%0A", "/invocations/", "//invocations", "/ping", "*", "x"),
    *("/", "/metrics", "/predict/", "/predict?belief=rows&image=pixels", "/predict?%ff=%00&belief"),
]
METHODS = ["POST", "POST", "POST", "GET", "PUT", "post", "HEAD", "OPTIONS", "CONNECT"]


def survives(
    port: int, caplog: pytest.LogCaptureFixture, body: bytes, path: str, method: str, headers: dict
) -> None:
    given = {"Content_Length": len(body), **headers}
    answer = sent(port, head(path, method, **given), body, end=True)
    assert all(int(code) < 500 for code in re.findall(rb"HTTP/1.1 (\d+)", answer)), answer
    assert b"Traceback" not in answer
    assert b'File "' not in answer
    assert not [record for record in caplog.records if record.exc_info]


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
    survives(port, caplog, body, path, method, {"Content_Type": JSON, **headers})


@fuzz(300)
@given(PICTURES, HEADERS, st.sampled_from(["/predict", "/predict?belief=rows", *PATHS]))
def test_no_picture_brings_it_down(
    port: int, caplog: pytest.LogCaptureFixture, body: bytes, headers: dict, path: str
) -> None:
    survives(port, caplog, body, path, "POST", {"Content_Type": "image/png", **headers})


@pytest.mark.parametrize("port", ["none", "99999999", "-1"])
def test_a_port_that_cannot_be_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["served", "127.0.0.1", "--", port])
    assert stopped.value.code == 2
    assert "argument port: " in capsys.readouterr().err
