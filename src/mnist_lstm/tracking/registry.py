"""The registered model `row-lstm`: each model is a version, and one version is the champion.

The tags of a version hold its Entrant and a note about each of its promotions and returns. A tag of
the registered model lists the former champions, so that one can go back to them.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from typing import Any, NamedTuple

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from torch import Tensor

from mnist_lstm.tracking import logged_model
from mnist_lstm.tracking.entrant import Decision, Entrant
from mnist_lstm.tracking.projection import StoredRun, runs
from mnist_lstm.tracking.store import Store, TrackingError, one_process

MODEL = "row-lstm"
ALIAS = "champion"
URI = "MLFLOW_TRACKING_URI"
BEFORE = "champions_before"  # a tag of the registered model: version numbers, the latest last
INTENT = "moves_champion."  # a tag of the registered model, while somebody moves the alias
PATIENCE = 30.0  # seconds until an intent is taken for that of a process that died
PAUSE = 0.1  # seconds between two looks
KEPT = 100  # version numbers in that tag at most; MLflow would allow more


@dataclass(frozen=True)
class Version:
    """A version of the registered model. `models:/row-lstm/<number>` loads it.

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
    return _version(found)


def every(store: Store) -> list[Version]:
    """All versions, the earliest first. Raises TrackingError."""
    with store.errors():
        return [_version(one) for one in _all(store)]


def registered(store: Store, model_sha256: str) -> Version | None:
    """The version with weights of this digest; None if there is none. Raises TrackingError."""
    with store.errors():
        found = [one for one in _all(store) if one.tags.get("model_sha256") == model_sha256]
    return _version(found[0]) if found else None


def weights(store: Store, version: Version) -> dict[str, Tensor]:
    """The weights in MLflow's copy of a version, named as in RowLSTM. Raises TrackingError."""
    with store.errors(), _store_of_all(store):
        return logged_model.weights(version.uri)


def register(store: Store, entrant: Entrant) -> Version:
    """The version of a model. It is created if there is none yet; the run must be in the store.

    Raises TrackingError.
    """
    with store.errors(), one_process(store.lock):
        if version := registered(store, entrant.model_sha256):
            return version
        (run, *_) = runs(store, f"tags.training_id = '{entrant.training_id}'")
        return _version(_register(store, run, entrant))


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
        return [_version(one) for one in _all(store) if _made_again(there, one)]


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
        made = next((one for one in _all(store) if one.run_id == run.info.run_id), None)
        if made is None:
            made = _register(store, run, version.entrant, old.tags, old.description)
        number = str(made.version)
        for alias in old.aliases:
            store.client.set_registered_model_alias(MODEL, alias, number)
        _write_before(store, [number if n == version.number else n for n in _before(store)])
        store.client.delete_model_version(MODEL, version.number)
        with suppress(MlflowException):  # somebody has deleted it
            store.client.delete_logged_model(str(old.source).removeprefix("models:/"))
        return _version(made)


def _made_again(there: Sequence[StoredRun], version: ModelVersion) -> StoredRun | None:
    """The run that shows a version's training now; None if it is the version's, or not there."""
    training_id = version.tags.get("training_id")
    found = [
        run for run in there if training_id and run.data.tags.get("training_id") == training_id
    ]
    is_there = any(run.info.run_id == version.run_id for run in found)
    return None if is_there or not found else found[0]


def promote(
    store: Store, version: Version, instead_of: Version | None, note: Mapping[str, Any]
) -> None:
    """Make a version the champion in place of another. The note becomes a tag of the version.

    Raises TrackingError, also if the champion is no longer `instead_of`: somebody was quicker.
    """

    def remember() -> None:
        if instead_of and instead_of.number != version.number:
            _write_before(store, [*_before(store), instead_of.number])

    with store.errors(), one_process(store.lock):
        # remembered before the alias moves: a kill in between must not lose the old champion
        _move(store, version, instead_of, _Note(version, "promotion", note), remember)


def former(store: Store) -> Version | None:
    """The champion before the present one; None if there was none. Raises TrackingError."""
    with store.errors():
        for _, version in _candidates(store):
            return version
    return None


def roll_back(store: Store, note: Mapping[str, Any], to: Version | None = None) -> Version | None:
    """Make the former champion the champion again; returns None if there was none.

    Deleted versions are skipped. Raises TrackingError, also if the former one is no longer `to`.
    """
    with store.errors(), one_process(store.lock):
        left = champion(store)
        for before, version in _candidates(store):
            if to and version.number != to.number:
                break
            _move(store, version, left, _Note(left, "return", note) if left else None)
            _write_before(store, before)
            return version
        if to:
            raise _outrun(left)
    return None


def was_made(store: Store, decision: Decision) -> bool:
    """Whether a decision that was interrupted was made: its model became the champion.

    The note of one that was not made is deleted. Raises TrackingError.
    """
    at = str(decision.note["at"])
    with store.errors():
        notes = _notes(_all(store))
        later = [each for each in notes if each.at > at]
        if at not in {each.at for each in notes}:
            return False
        if not later:
            present = champion(store)
            number = present.number if present else None
        elif later[0].key.startswith("return."):  # a note of the version that was left
            number = later[0].number
        else:
            number = later[0].instead_of
        version = registered(store, decision.entrant.model_sha256)
        is_made = version is not None and version.number == number
        for each in notes:
            if each.at == at and not is_made and not later:
                store.client.delete_model_version_tag(MODEL, each.number, each.key)
        return is_made


def lacking(store: Store, decisions: Sequence[Decision]) -> list[str]:
    """A line for each decision that the registry lacks. None if it has later ones than these.

    Raises TrackingError.
    """
    with store.errors():
        notes = {each.at for each in _notes(_all(store))}
        if not decisions or max(notes, default="") > str(decisions[-1].note["at"]):
            return []
        lines = [
            f"the registry lacks its {each.what} of {each.note['at']}"
            for each in decisions
            if each.note["at"] not in notes
        ]
        present, last = champion(store), decisions[-1].entrant
        if present is None or present.model_sha256 != last.model_sha256:
            lines.append(f"it is the champion by git, and {ALIAS} in MLflow is another, or none")
        return lines


def restore(store: Store, decisions: Sequence[Decision]) -> list[str]:
    """Make the registry as these decisions made it: versions, notes, the champion, former ones.

    A version that is there stays; a new one may have another number than before. Returns a line for
    each model that MLflow does not have, whose decisions are left out. Raises TrackingError.
    """
    left_out: dict[str, str] = {}
    present: Version | None = None
    before: list[str] = []
    with store.errors():
        for each in decisions:
            entrant = each.entrant
            if not can_restore(store, entrant):
                left_out[entrant.model_sha256] = f"{entrant.name}: its results are not here"
                continue
            version = register(store, entrant)
            noted = present if each.what == "return" else version
            if noted and each.note["at"] not in {one.at for one in _notes(_all(store))}:
                _Note(noted, each.what, each.note).add(store)
            if each.what == "return":
                while before and before.pop() != version.number:
                    pass
            elif present and present.number != version.number:
                before.append(present.number)
            present = version
        if present:
            _write_before(store, before)
            store.client.set_registered_model_alias(MODEL, ALIAS, present.number)
    return list(left_out.values())


def can_restore(store: Store, entrant: Entrant) -> bool:
    """Whether MLflow has a version of a model, or a run that one can be made of."""
    if registered(store, entrant.model_sha256):
        return True
    found = runs(store, f"tags.training_id = '{entrant.training_id}'")
    return any(
        logged_model.logged_model(store, run.info.run_id, entrant.model_sha256) for run in found
    )


class _Noted(NamedTuple):
    """A note in the tag `key` of a version: when, and which version was the champion before."""

    at: str
    number: str
    key: str
    instead_of: str | None


def _notes(versions: Sequence[ModelVersion]) -> list[_Noted]:
    """The notes of all decisions, the earliest first."""
    found = []
    for version in versions:
        for key, text in version.tags.items():
            if key.startswith(("promotion.", "return.")):
                with suppress(ValueError, LookupError, TypeError, AttributeError):
                    note = json.loads(text)
                    before = note.get("instead_of")
                    found.append(_Noted(str(note["at"]), str(version.version), key, before))
    return sorted(found)


@dataclass(frozen=True)
class _Note:
    """A note that becomes a tag of a version: `promotion.1`, `promotion.2`, `return.1`, …"""

    version: Version
    what: str
    values: Mapping[str, Any]

    def add(self, store: Store) -> str:
        """Set the tag; returns its key."""
        tags = store.client.get_model_version(MODEL, self.version.number).tags
        key = f"{self.what}.{1 + sum(key.startswith(f'{self.what}.') for key in tags)}"
        text = json.dumps(dict(self.values), ensure_ascii=False)
        store.client.set_model_version_tag(MODEL, self.version.number, key, text)
        return key


def _move(
    store: Store,
    version: Version,
    instead_of: Version | None,
    note: _Note | None,
    first: Callable[[], None] = lambda: None,
) -> None:
    """Move the alias to a version. Raises TrackingError, also if somebody else was quicker.

    MLflow moves an alias from wherever it is. So everybody leaves an intent, checks that the
    champion is the expected one, moves the alias and takes the intent back. Then they wait until
    the intents that others had left are gone, and read the alias again. An intent left after the
    alias was moved finds another champion; one left before is waited for. So after the wait nobody
    moves the alias on the old champion's account, and one of them has it.
    """
    intent, tag, began = f"{INTENT}{uuid.uuid4().hex}", None, time.monotonic()
    store.client.set_registered_model_tag(MODEL, intent, version.number)
    try:
        present = champion(store)
        if (present and present.number) != (instead_of and instead_of.number):
            raise _outrun(present)
        first()
        tag = note.add(store) if note else None
        if time.monotonic() - began > PATIENCE / 2:  # others may no longer wait for this one
            raise TrackingError("the server takes too long to change the champion; try again")
        store.client.set_registered_model_alias(MODEL, ALIAS, version.number)
    finally:
        store.client.delete_registered_model_tag(MODEL, intent)
    _wait_for_others(store)
    present = champion(store)
    if present is None or present.number != version.number:
        if note and tag:
            store.client.delete_model_version_tag(MODEL, note.version.number, tag)
        raise _outrun(present)


def _wait_for_others(store: Store) -> None:
    """Wait until the intents are gone that are there now; delete those of processes that died."""
    others, until = intents(store), time.monotonic() + PATIENCE
    while others and time.monotonic() < until:
        time.sleep(PAUSE)
        others &= intents(store)
    for key in others:
        with suppress(MlflowException):  # another one has deleted it
            store.client.delete_registered_model_tag(MODEL, key)


def intents(store: Store) -> set[str]:
    """The tags of those who are about to move the alias."""
    tags = store.client.get_registered_model(MODEL).tags
    return {key for key in tags if key.startswith(INTENT)}


def _outrun(present: Version | None) -> TrackingError:
    """Who was quicker, in the error for the one who was not."""
    who = f": it is {present.entrant.name}, version {present.number}" if present else ""
    if present and (made := present.promoted):
        who += f", promoted by {made.get('by', 'somebody')} on {made.get('host', 'some machine')}"
    return TrackingError(f"the champion has changed meanwhile{who}; repeat the command")


def _candidates(store: Store) -> Iterator[tuple[list[str], Version]]:
    """The earlier champions that still exist, the latest first, each with the numbers before it."""
    present = champion(store)
    there = {str(one.version): one for one in _all(store)}
    before = _before(store)
    while before:
        number = before.pop()
        if number in there and not (present and present.number == number):
            yield list(before), _version(there[number])


def _before(store: Store) -> list[str]:
    tags = store.client.get_registered_model(MODEL).tags if _has_model(store) else {}
    return [str(number) for number in json.loads(tags.get(BEFORE, "[]"))]


def _write_before(store: Store, numbers: Sequence[str]) -> None:
    kept = [number for at, number in enumerate(numbers) if numbers[at - 1 : at] != [number]]
    store.client.set_registered_model_tag(MODEL, BEFORE, json.dumps(kept[-KEPT:]))


def _all(store: Store) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token = None
    while True:
        page = store.client.search_model_versions(f"name = '{MODEL}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda one: int(one.version))


def _version(found: ModelVersion) -> Version:
    tags = dict(found.tags)
    missing = [entry.name for entry in fields(Entrant) if entry.name not in tags]
    if missing:
        raise TrackingError(
            f"{MODEL} version {found.version} was not registered by `mnist-lstm promote`: it has "
            f"no tag {missing[0]}; delete it, or move the alias {ALIAS} to another version"
        )
    values = {entry.name: tags[entry.name] for entry in fields(Entrant)}
    images = int(values.pop("validation_images"))
    accuracy = float(values.pop("validation_accuracy"))
    entrant = Entrant(**values, validation_images=images, validation_accuracy=accuracy)
    return Version(str(found.version), entrant, tags)


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
