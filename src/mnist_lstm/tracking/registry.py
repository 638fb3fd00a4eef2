"""The registered model: each model is a version, and one version is the champion.

The tags of a version hold its Entrant and a note about each of its promotions and returns. A tag of
the registered model lists the former champions. tracking/handover changes the champion.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from mnist_lstm.tracking import logged_model
from mnist_lstm.tracking.entrant import MODEL, Entrant
from mnist_lstm.tracking.store import Store, all_pages, one_process
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import StoredRun, runs

if TYPE_CHECKING:
    from torch import Tensor

ALIAS = "champion"
URI = "MLFLOW_TRACKING_URI"
BEFORE = "champions_before"  # a tag of the registered model: version numbers, the latest last
KEPT = 100  # version numbers in that tag at most; MLflow would allow more


@dataclass(frozen=True)
class Version:
    """A version of the registered model.

    `entrant` is what was recorded when the version was registered.
    """

    number: str
    entrant: Entrant
    tags: Mapping[str, str]

    @property
    def model_sha256(self) -> str:
        """The SHA-256 of its weights, the file results/train/model.safetensors."""
        return self.entrant.model_sha256

    @property
    def training_id(self) -> str:
        """The id of the first training that made these weights; later ones may have repeated it."""
        return self.entrant.training_id

    @property
    def promoted(self) -> dict[str, Any]:
        """The note about its last promotion; empty if it has none that can be read."""
        notes = {key: text for key, text in self.tags.items() if key.startswith("promotion.")}
        try:
            last = max(notes, key=lambda key: int(key.partition(".")[2]))
            return dict(json.loads(notes[last]))
        except (ValueError, TypeError):
            return {}

    @property
    def title(self) -> str:
        """The version in words."""
        return f"version {self.number} of {MODEL}"

    @property
    def uri(self) -> str:
        """The URI from which MLflow loads the version."""
        return f"models:/{MODEL}/{self.number}"


def champion(store: Store) -> Version | None:
    """The version that is the champion; None if there is none. Raises TrackingError."""
    with store.errors():
        try:
            found = store.client.get_model_version_by_alias(MODEL, ALIAS)
        except MlflowException as error:
            if _is_absent(store, error):
                return None  # also if the alias names a version that was deleted
            raise
    return as_version(found)


def registered(store: Store, model_sha256: str) -> Version | None:
    """The version with weights of this digest; None if there is none. Raises TrackingError."""
    with store.errors():
        found = [one for one in versions(store) if one.tags.get("model_sha256") == model_sha256]
    return as_version(found[0]) if found else None


def params(store: Store, version: Version) -> Mapping[str, str]:
    """The parameters of a version's training, as its run has them; empty if the run is deleted.

    Raises TrackingError.
    """
    with store.errors():
        found = runs(store, f"tags.training_id = '{version.training_id}'")
    return dict(found[0].data.params) if found else {}


def weights(store: Store, version: Version) -> dict[str, "Tensor"]:
    """The weights in MLflow's copy of a version, named as in RowLSTM. Raises TrackingError."""
    from mnist_lstm.tracking.exported_model import DamagedModel, weights_of  # imports torch

    with store.errors(), _store_of_all(store):
        try:
            return weights_of(version.uri)
        except DamagedModel as error:
            raise TrackingError(
                f"{version.title}, of {version.entrant.name}: its model in "
                f"MLflow is damaged ({error}); get its results from whoever made it, or promote "
                "another run"
            ) from None


def register(store: Store, entrant: Entrant) -> Version:
    """The version of a model. It is created if there is none yet; the run must be in the store.

    Raises TrackingError.
    """
    with store.errors(), one_process(store.lock):
        if version := registered(store, entrant.model_sha256):
            return version
        (run, *_) = runs(store, f"tags.training_id = '{entrant.training_id}'")
        made = as_version(_register(store, run, entrant))
        first = registered(store, entrant.model_sha256) or made
        if first.number != made.number:  # somebody has registered it on the server meanwhile
            store.client.delete_model_version(MODEL, made.number)
        return first


def _register(
    store: Store,
    run: StoredRun,
    entrant: Entrant,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
) -> ModelVersion:
    """Create a version of the model of a run; `tags` are those beside the entrant's."""
    model = logged_model.logged_model(store, run.info.run_id, entrant.model_sha256)
    if model is None:
        raise TrackingError(
            f"{entrant.name} has no model in the MLflow store; `mnist-lstm sync` adds it"
        )
    _make_model(store)
    with _store_of_all(store):
        return store.client.create_model_version(
            MODEL,
            source=f"models:/{model.model_id}",
            run_id=run.info.run_id,
            tags={key: str(value) for key, value in asdict(entrant).items()} | dict(tags or {}),
            model_id=model.model_id,
            description=description,
        )


def outdated(store: Store, stored: Sequence[StoredRun] | None = None) -> list[Version]:
    """The versions of runs that were made again since. Raises TrackingError.

    `stored` are all runs, where they have been asked for already.

    Such a version still loads its model, but it shows a deleted run.
    """
    with store.errors():
        there = runs(store) if stored is None else stored
        return [as_version(one) for one in versions(store) if _made_again(there, one)]


def renew(store: Store, version: Version) -> Version:
    """Put a version of the present run in the place of an outdated one, which is deleted.

    MLflow cannot change the run of a version, so the new one has another number. It has the tags,
    the description and the aliases of the old one, and its place among the former champions. Raises
    TrackingError.
    """
    with store.errors(), one_process(store.lock):
        old = store.client.get_model_version(MODEL, version.number)
        run = _made_again(runs(store), old)
        if run is None:
            return version
        # a kill may have left it without the rest
        made = next((one for one in versions(store) if one.run_id == run.info.run_id), None)
        if made is None:
            made = _register(store, run, version.entrant, old.tags, old.description)
        number = str(made.version)
        for alias in old.aliases:
            store.client.set_registered_model_alias(MODEL, alias, number)
        write_former_numbers(
            store, [number if n == version.number else n for n in former_numbers(store)]
        )
        store.client.delete_model_version(MODEL, version.number)
        with suppress(MlflowException):  # somebody has deleted it
            store.client.delete_logged_model(str(old.source).removeprefix("models:/"))
        return as_version(made)


def _made_again(there: Sequence[StoredRun], version: ModelVersion) -> StoredRun | None:
    """The run that shows a version's training now; None if it is the version's, or not there."""
    training_id = version.tags.get("training_id")
    found = [
        run for run in there if training_id and run.data.tags.get("training_id") == training_id
    ]
    is_there = any(run.info.run_id == version.run_id for run in found)
    return None if is_there or not found else found[0]


def former_numbers(store: Store) -> list[str]:
    """The numbers of the former champions, the latest last.

    Raises TrackingError if somebody changed the tag into something else.
    """
    tags = store.client.get_registered_model(MODEL).tags if _has_model(store) else {}
    with suppress(ValueError):
        if isinstance(found := json.loads(tags.get(BEFORE, "[]")), list):
            return [str(number) for number in found]
    raise TrackingError(
        f"{MODEL}: its tag {BEFORE} must be a list of version numbers, such as "
        '["1", "2"], the latest last; correct it in MLflow, or delete it there'
    )


def write_former_numbers(store: Store, numbers: Sequence[str]) -> None:
    """Replace the numbers of the former champions. Of repetitions in a row, one is kept."""
    kept = [number for at, number in enumerate(numbers) if numbers[at - 1 : at] != [number]]
    store.client.set_registered_model_tag(MODEL, BEFORE, json.dumps(kept[-KEPT:]))


def versions(store: Store) -> list[ModelVersion]:
    """All versions as MLflow has them, the earliest first."""
    search, named = store.client.search_model_versions, f"name = '{MODEL}'"
    found = all_pages(lambda token: search(named, page_token=token))
    return sorted(found, key=lambda one: int(one.version))


def as_version(found: ModelVersion) -> Version:
    """A version of MLflow's.

    Raises TrackingError if `promote` did not register it, or if somebody changed its tags.
    """
    tags = dict(found.tags)
    missing = [entry.name for entry in fields(Entrant) if entry.name not in tags]
    if missing:
        raise TrackingError(
            f"{MODEL} version {found.version} was not registered by `mnist-lstm promote`: it has "
            f"no tag {missing[0]}; delete it, or move the alias {ALIAS} to another version"
        )
    values: dict[str, Any] = {entry.name: tags[entry.name] for entry in fields(Entrant)}
    numbers = {"validation_images": int, "validation_accuracy": float}
    for tag, kind in numbers.items():
        with suppress(ValueError):
            values[tag] = kind(tags[tag])
        if isinstance(values[tag], str) or not 0 <= values[tag] < math.inf:
            raise TrackingError(
                f"{MODEL} version {found.version}: its tag {tag} must be a number as "
                f"`mnist-lstm promote` writes it, is {tags[tag]!r}; correct it in MLflow"
            )
    return Version(str(found.version), Entrant(**values), tags)


@contextmanager
def _store_of_all(store: Store) -> Iterator[None]:
    """Set MLFLOW_TRACKING_URI: MLflow finds a version's source only through this variable."""
    before = os.environ.get(URI)
    os.environ[URI] = store.uri
    try:
        yield
    finally:
        if before is None:
            del os.environ[URI]
        else:
            os.environ[URI] = before


def _has_model(store: Store) -> bool:
    try:
        store.client.get_registered_model(MODEL)
    except MlflowException as error:
        if _is_absent(store, error):
            return False
        raise
    return True


def _make_model(store: Store) -> None:
    if not _has_model(store):
        what = "An LSTM that reads a handwritten digit a pixel row at a time"
        try:
            store.client.create_registered_model(MODEL, description=what)
        except MlflowException:
            if not _has_model(store):  # otherwise somebody has created it meanwhile
                raise


def _is_absent(store: Store, error: MlflowException) -> bool:
    """Whether an error says that a model or a version is not there.

    A server with logins refuses questions about a model that is not there, as if it were somebody's
    secret. But it lists each model that one may read.
    """
    if error.get_http_status_code() == HTTPStatus.FORBIDDEN:
        return not store.client.search_registered_models(f"name = '{MODEL}'", max_results=1)
    return error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE")
