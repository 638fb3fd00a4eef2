"""MLflow's scoring server around a model, for `serving` to put its checks in front of."""

import os

from fastapi import FastAPI
from mlflow.models import Model
from mlflow.pyfunc.scoring_server.app import app

MODEL_URI = "__pyfunc_model_path__"  # the variable by which MLflow's server is given its model


def scoring_app() -> FastAPI:
    """MLflow's server, as the application that it is."""
    server: FastAPI = app
    return server


def image_size() -> tuple[int, int]:
    """Rows and pixels of the images that the served model takes."""
    (_, rows, pixels) = Model.load(os.environ[MODEL_URI]).get_input_schema().inputs[0].shape
    return rows, pixels
