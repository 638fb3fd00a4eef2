"""Serve a model over HTTP: batches of pixels, pictures, a page, metrics. Run: make serve

Or, from a folder that `mnist-lstm export` wrote, with no need of MLflow and DVC:
python -m mnist_lstm.serving.app FOLDER HOST PORT [NAME ...]
"""

import argparse
import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from mnist_lstm import UserError, __version__
from mnist_lstm.runs.servable import Servable, read
from mnist_lstm.serving.classifier import BusyClassifier
from mnist_lstm.serving.metrics import FORMAT, Metrics
from mnist_lstm.serving.patience import PatientProtocol
from mnist_lstm.serving.request import PICTURE, Unacceptable, check, check_hosts, most_bytes, wishes
from mnist_lstm.views.text_table import escaped

OWN_HOSTS = ("127.0.0.1", "localhost")
JSON = "application/json"
PICTURES = ("image/png", "image/jpeg", "image/jpg", "application/octet-stream")
KIND = "mnist_lstm.kind"  # of a refusal, in the scope of its request
KINDS = {400: "host", 404: "path", 405: "method", 413: "too large", 500: "error"}  # else, by status
LAST_SECONDS = 8  # for requests that are there when the server ends; docker kills after 10
SMALL = 2**16  # bytes of a request that is checked at once, not in a thread
PATHS = ("/", "/invocations", "/predict", "/metrics", "/ping", "/health", "/version")


def application(served: Servable, names: Sequence[str] = ()) -> Starlette:
    """The server of a model. Requests may name one of `names` or this machine as their Host."""
    server = _Server(served)
    app = Starlette(
        routes=[
            Route("/", server.page),
            Route("/invocations", server.invocations, methods=["POST"]),
            Route("/predict", server.predict, methods=["POST"]),
            Route("/metrics", server.report),
            Route("/ping", _alive),
            Route("/health", _alive),
            Route("/version", _version),
        ],
        middleware=[
            Middleware(_Counted, metrics=server.metrics),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=[*OWN_HOSTS, *names], www_redirect=False
            ),
        ],
        exception_handlers={
            HTTPException: _not_answered,
            Unacceptable: _refused,
            ClientDisconnect: _broken_off,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    app.state.metrics = server.metrics
    return app


def options(app: Starlette) -> dict[str, Any]:
    """The options of uvicorn for an application of this file."""

    class Protocol(PatientProtocol):
        def refused(self, kind: str) -> None:
            app.state.metrics.refusals.labels("other", kind).inc()

    return {
        "http": Protocol,
        "ws": "none",
        "access_log": False,
        "lifespan": "off",
        "timeout_graceful_shutdown": LAST_SECONDS,
    }


class _Server:
    """The answers to requests."""

    def __init__(self, served: Servable) -> None:
        self.served = served
        self.classifier = BusyClassifier(served)
        self._checks = ThreadPoolExecutor(2, "check")  # each may take 0.1 GB
        self.metrics = Metrics(served.classes, served.usual)
        policy = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', served.page)
        self._headers = {  # the page has its policy in a tag, where it cannot forbid frames
            "Content-Security-Policy": "; ".join([*policy, "frame-ancestors 'none'"]),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }

    async def page(self, _: Request) -> Response:
        """The page in which one drops or draws a picture."""
        return HTMLResponse(self.served.page, headers=self._headers)

    async def report(self, _: Request) -> Response:
        """The metrics."""
        return Response(self.metrics.text(), media_type=FORMAT)

    async def invocations(self, request: Request) -> Response:
        """Probabilities of a batch of images, in the format of MLflow's scoring server."""
        body = await _body(request, (JSON,), JSON, most_bytes(*self.served.image))
        if len(body) < SMALL:
            images = self._images(body)  # (N, T, D)
        else:
            loop = asyncio.get_running_loop()
            images = await loop.run_in_executor(self._checks, self._images, body)
        del body  # up to 40 MB, which the classification does not need
        probabilities = (await self.classifier.logits(images)).softmax(dim=1).numpy()
        self.metrics.saw(images.numpy(), probabilities)
        return _json({"predictions": probabilities.tolist()})

    def _images(self, body: bytes) -> Tensor:
        images = np.array(check(body, *self.served.image), dtype=np.uint8)
        return torch.from_numpy(images)

    async def predict(self, request: Request) -> Response:
        """The class of a picture, with what `mnist-lstm predict --json` says of it."""
        rows, pixels = wishes(request.query_params.multi_items())
        body = await _body(request, PICTURES, "image/png or image/jpeg", PICTURE)
        try:
            reading = await self.classifier.prepared(body)
        except UserError as error:
            what = f"the picture: {error}" if body else "the body is empty; send a picture"
            raise Unacceptable(what, "picture") from None
        image = reading.pixels  # (T, D)
        if rows:
            logits = await self.classifier.after_each_row(image)  # (T, C)
        else:
            logits = await self.classifier.logits(torch.from_numpy(image)[None])  # (1, C)
        beliefs = logits.double().softmax(dim=1).numpy()
        last, classes = beliefs[-1], self.served.classes
        self.metrics.saw(image[None], last[None])
        answer = {
            "class": classes[last.argmax()],
            "probability": float(last.max()),
            "probabilities": dict(zip(classes, last.tolist(), strict=True)),
            "doubts": list(reading.doubts),
        }
        if rows:
            answer["rows"] = [dict(zip(classes, row.tolist(), strict=True)) for row in beliefs]
        if pixels:
            answer["pixels"] = image.tolist()
        return _json(answer)


class _Counted:
    """Count each request, with its seconds, by the status of its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status, started = time.perf_counter(), 500, False

        async def answering(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            started = True

        try:
            await self.app(scope, receive, answering)
        except asyncio.CancelledError:  # the server ends, and does not wait any longer
            if not started:
                await _error(503, "the server ends")(scope, receive, answering)
        finally:
            path = scope.get("path", "")
            path = path if path in PATHS else "other"  # a client must not make up labels
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)
            if status >= 400:
                kind = scope.get(KIND) or KINDS.get(status, "request")
                self.metrics.refusals.labels(path, kind).inc()


async def _body(request: Request, accepted: Sequence[str], words: str, most: int) -> bytes:
    """The body, of `most` bytes at most. Raises Unacceptable before it reads more than that."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in accepted:
        what = f"the Content-Type must be {words}, is {given[:100] or 'none'}"
        raise Unacceptable(what, "content type", 415)
    what = f"the body is larger than {most / 1e6:,.0f} MB"
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > most:
        raise Unacceptable(what, "too large", 413)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Unacceptable(what, "too large", 413)
    return bytes(body)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unacceptable)
    request.scope[KIND] = error.kind
    return _error(error.status, str(error))


async def _not_answered(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    return _error(500, "the server has failed; its log says why")


async def _broken_off(request: Request, _: Exception) -> Response:
    logging.getLogger("uvicorn.error").warning("A request broke off before its end.")
    request.scope[KIND] = "broken off"
    return Response(status_code=400)  # nobody receives it


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    content = {"error_code": "BAD_REQUEST", "message": message}  # as MLflow's errors
    return _json(content, status, headers)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # in ASCII: a message may quote half a surrogate pair, which UTF-8 cannot encode
    return Response(json.dumps(content), status, headers, media_type=JSON)


async def _alive(_: Request) -> Response:
    return Response("\n")


async def _version(_: Request) -> Response:
    return PlainTextResponse(__version__)


def serve(served: Servable, host: str, port: int, names: Sequence[str] = ()) -> None:
    """Answer requests until Ctrl-C. Then this process ends."""
    # the thread of the event loop and those that compute take turns: 5 ms a turn are too long
    sys.setswitchinterval(0.001)
    app = application(served, names)
    uvicorn.run(app, host=host, port=port, **options(app))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what still classifies is not waited for


def main(given: Sequence[str] | None = None) -> None:
    """Serve the model in a folder that `mnist-lstm export` wrote."""
    parser = argparse.ArgumentParser("python -m mnist_lstm.serving.app", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="the folder")
    parser.add_argument("host", help="address to listen on: 127.0.0.1, or 0.0.0.0 in a container")
    parser.add_argument("port", type=int, help="port to listen on")
    parser.add_argument(
        "names", metavar="name", nargs="*", help="name of this machine that requests may use"
    )
    arguments = parser.parse_args(given)
    if not 0 <= arguments.port < 2**16:
        parser.error(f"argument port: must be below 65536, is {arguments.port}")
    try:
        check_hosts(arguments.names)
        served = read(arguments.folder)
    except UserError as error:
        sys.exit(f"serve: {escaped(str(error))}")
    where = f"http://{arguments.host}:{arguments.port}/"
    print(f"serve: {escaped(served.source)}: {where}; Ctrl-C ends it", flush=True)
    serve(served, arguments.host, arguments.port, arguments.names)


if __name__ == "__main__":
    main()
