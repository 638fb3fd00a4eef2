"""MLflow as a view of a training's files, which can be made anew from them; its only importer.

`store` is where the runs are, `view` what they show, `projection` brings a run into line with its
files (its model: `logged_model`), `audit` finds what disagrees in all of them, and `Follower` shows
a training while it goes on.
"""

import logging
import os

from mnist_lstm.tracking.follower import Follower

__all__ = ["Follower"]

# said before MLflow is imported, which reads them: no usage reports, and a server that is away must
# not hold anything up (by default a call to it is tried for 247 s)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # seconds

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a file

# said before its first use: the tables of a fresh store are made without a word, and what goes
# wrong with them is said once, by whoever catches it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
