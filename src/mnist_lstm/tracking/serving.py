"""MLflow's scoring server for the model that __pyfunc_model_path__ names, with requests checked.

MLflow alone answers images of floats, or with pixels above 255, as if they were others: it casts
them to bytes. Run: make serve
"""

import json
from collections.abc import Awaitable, Callable

from mlflow.pyfunc.scoring_server.app import app, scoring_server
from starlette.requests import Request
from starlette.responses import Response

from mnist_lstm.invocation import Unacceptable, check
