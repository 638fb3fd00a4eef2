"""Show a training's files in MLflow, which can be rebuilt from them. Only this room imports it."""

import logging
import os

# MLflow reads these variables when it is imported. They switch off usage reports and long waits: by
# default MLflow repeats a call to a server that does not answer for 247 s
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # seconds

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar for each file

# MLflow would print two lines with the run's address whenever a run on a server ends
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

# MLflow then logs nothing when it creates the tables of a new store, and an error is reported once,
# by the code that catches it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

# MLflow would announce that it waits up to 300 s for a version, which is ready at once
logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
