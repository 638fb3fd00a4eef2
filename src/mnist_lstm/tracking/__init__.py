"""MLflow as a view of a training's files, which can be made anew from them; its only importer."""

import logging
import os

# said before MLflow is imported, which reads them: no usage reports, and a server that is away must
# not hold anything up (by default a call to it is tried for 247 s)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # seconds

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a file

# said before its first use: the tables of a fresh store are made without a word, and what goes
# wrong with them is said once, by whoever catches it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
