"""MLflow's scoring server, with what it is sent checked first. Run: make serve

MLflow alone casts pixels to bytes: it answers 256, or 0.5, as if it were 0. The model is the one
that the environment names, as MLflow's own `models serve` hands it to its server.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from mlflow.models import Model
from mlflow.pyfunc.scoring_server.app import app

from mnist_lstm.serving.request import Unacceptable, check

MODEL_URI = "__pyfunc_model_path__"  # MLflow's name

(_, ROWS, PIXELS) = Model.load(os.environ[MODEL_URI]).get_input_schema().inputs[0].shape


@app.middleware("http")  # type: ignore[untyped-decorator]
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
