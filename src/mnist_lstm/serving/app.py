"""MLflow's scoring server, with what it is sent checked first. Run: make serve

MLflow alone casts pixels to bytes: it answers 256, or 0.5, as if it were 0. The model is the one
that the environment names, as MLflow's own `models serve` hands it to its server.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable

from fastapi import Request, Response

from mnist_lstm.serving.request import Unacceptable, check
from mnist_lstm.tracking.scoring_server import image_size, scoring_app

app = scoring_app()
ROWS, PIXELS = image_size()


@app.middleware("http")
async def refuse_what_is_no_image(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Answer 415 or 400 with a reason, in the form of MLflow's own errors, or hand on."""
    if request.url.path == "/invocations" and request.method == "POST":
        given = request.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, f"the Content-Type must be application/json, is {given or 'none'}")
        try:
            await asyncio.to_thread(check, await request.body(), ROWS, PIXELS)
        except Unacceptable as error:
            return _refusal(400, str(error))
    return await call_next(request)


def _refusal(status: int, message: str) -> Response:
    content = {"error_code": "BAD_REQUEST", "message": message}
    return Response(json.dumps(content, ensure_ascii=False), status, media_type="application/json")
