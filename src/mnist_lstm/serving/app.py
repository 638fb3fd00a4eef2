"""MLflow's scoring server, with a check of each request before it. Run: make serve

MLflow alone casts pixels to bytes: it treats 256 and 0.5 as 0. The environment names the model, in
the same way as MLflow's own `models serve` names it to its server.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from mnist_lstm.serving.patience import PatientProtocol
from mnist_lstm.serving.request import Unacceptable, check, most_bytes
from mnist_lstm.tracking.scoring_server import image_size, scoring_app

OWN_HOSTS = ("127.0.0.1", "localhost")
OPTIONS: dict[str, Any] = {"http": PatientProtocol, "ws": "none", "access_log": False}  # uvicorn's


def guarded(server: FastAPI, rows: int, pixels: int, hosts: Sequence[str]) -> FastAPI:
    """Let MLflow's server accept only images of `rows` rows of `pixels` pixels.

    Requests may name one of `hosts` or this machine as their Host. The server's page /docs is
    removed, because it loads scripts from another server.
    """
    server.router.routes[:] = [route for route in server.routes if isinstance(route, APIRoute)]
    server.max_body_size = most_bytes(rows, pixels)

    @server.middleware("http")
    async def refuse_what_is_no_image(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Refuse with 415 or 400 and a reason, in the form of MLflow's errors, or pass it on."""
        if request.method != "POST":  # whatever its path: /invocations%0A is /invocations too
            return await call_next(request)
        given = request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, f"the Content-Type must be application/json, is {given or 'none'}")
        try:
            await asyncio.to_thread(check, await request.body(), rows, pixels)
        except Unacceptable as error:
            return _refusal(400, str(error))
        except ClientDisconnect:
            logging.getLogger("uvicorn.error").warning("A request broke off before its end.")
            return Response()  # nobody receives it
        return await call_next(request)

    server.add_middleware(
        TrustedHostMiddleware, allowed_hosts=[*OWN_HOSTS, *hosts], www_redirect=False
    )
    return server


def _refusal(status: int, message: str) -> Response:
    content = {"error_code": "BAD_REQUEST", "message": message}
    # in ASCII: the message may quote half a surrogate pair, which UTF-8 cannot encode
    return Response(json.dumps(content), status, media_type="application/json")


def main(host: str, port: str, *hosts: str) -> None:
    server = guarded(scoring_app(), *image_size(), hosts)
    uvicorn.run(server, host=host, port=int(port), **OPTIONS)


if __name__ == "__main__":
    main(*sys.argv[1:])
