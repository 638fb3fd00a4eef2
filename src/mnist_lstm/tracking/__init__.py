"""MLflow as a view of a training's files, from which it can be rebuilt; its only importer."""

import logging
import os

# set before MLflow is imported and reads them: no usage reports, and a server that does not answer
# must not delay anything (by default a call is tried for 247 s)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # seconds

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a file

# set before its first use: creating the tables of a new store logs nothing, and an error is
# reported once, by the code that catches it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
