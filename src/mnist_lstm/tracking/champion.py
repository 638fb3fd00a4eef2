"""The champion: the version of the registered model that the alias `champion` is on."""

from pathlib import Path

from mlflow.exceptions import MlflowException

from mnist_lstm.tracking.store import TrackingError, open_store, shown

MODEL, ALIAS, DIGEST = "row-lstm", "champion", "model_sha256"
# what MLflow answers where the model has no version yet, or none has the alias
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def champion(root: Path) -> tuple[str, str] | None:
    """The champion's version, and the SHA-256 of its weights file; None where there is none.

    Raises TrackingError where the store does not open or does not know the champion's weights.
    """
    store = open_store(root)
    with store.errors():
        try:
            version = store.client.get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
            return None
    if DIGEST not in version.tags:
        raise TrackingError(
            f"MLflow store {shown(store.uri)}: version {version.version} of {MODEL}, the "
            f"{ALIAS}, has no tag {DIGEST}; name a model with --run or --model"
        )
    return str(version.version), version.tags[DIGEST]
