"""MLflow's scoring server for a model. The room `serving` puts its checks in front of it."""

import os

from fastapi import FastAPI
from mlflow.models import Model

MODEL_URI = "__pyfunc_model_path__"  # the variable that tells MLflow's server which model to serve


def scoring_app() -> FastAPI:
    """MLflow's server as a FastAPI application."""
    from mlflow.pyfunc.scoring_server.app import app  # loads the model

    server: FastAPI = app
    return server


def image_size() -> tuple[int, int]:
    """Number of rows, and of pixels in a row, of the images that the served model takes."""
    (_, rows, pixels) = Model.load(os.environ[MODEL_URI]).get_input_schema().inputs[0].shape
    return rows, pixels
