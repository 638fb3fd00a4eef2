"""The champion changes: by a promotion, by a return, or to what the decisions in git say.

Only one version is the champion, whoever promotes at the same time: `_move` says how.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mnist_lstm.tracking import logged_model
from mnist_lstm.tracking.entrant import MODEL, Decision, Entrant
from mnist_lstm.tracking.registry import (
    ALIAS,
    Version,
    as_version,
    champion,
    former_numbers,
    register,
    registered,
    versions,
    write_former_numbers,
)
from mnist_lstm.tracking.store import Store, one_process
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs

INTENT = "moves_champion."  # a tag of the registered model, while somebody moves the alias
PATIENCE = 30.0  # seconds until an intent is taken for that of a process that died
PAUSE = 0.1  # seconds between two looks


def promote(
    store: Store, version: Version, instead_of: Version | None, note: Mapping[str, Any]
) -> None:
    """Make a version the champion in place of another. The note becomes a tag of the version.

    Raises TrackingError, also if the champion is no longer `instead_of`: somebody was quicker.
    """

    def remember() -> None:
        if instead_of and instead_of.number != version.number:
            write_former_numbers(store, [*former_numbers(store), instead_of.number])

    with store.errors(), one_process(store.lock):
        # remembered before the alias moves: a kill in between must not lose the old champion
        _move(store, version, instead_of, _Note(version, "promotion", note), remember)


def former(store: Store) -> Version | None:
    """The champion before the present one; None if there was none. Raises TrackingError."""
    with store.errors():
        for _, version in _candidates(store):
            return version
    return None


def roll_back(store: Store, note: Mapping[str, Any], to: Version) -> None:
    """Make the former champion the champion again.

    Deleted versions are skipped. Raises TrackingError, also if the former one is no longer `to`.
    """
    with store.errors(), one_process(store.lock):
        left = champion(store)
        before, version = next(_candidates(store), ([], None))
        if version is None or version.number != to.number:
            raise _outrun(left)
        _move(store, version, left, _Note(left, "return", note) if left else None)
        write_former_numbers(store, before)


def was_made(store: Store, decision: Decision) -> bool:
    """Whether a decision that was interrupted was made: its model became the champion.

    The note of one that was not made is deleted. Raises TrackingError.
    """
    at = str(decision.note["at"])
    with store.errors():
        there = versions(store)
        notes = _notes(there)
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
        weights = {str(one.version): one.tags.get("model_sha256") for one in there}
        is_made = number is not None and weights.get(number) == decision.entrant.model_sha256
        for each in notes:
            if each.at == at and not is_made and not later:
                store.client.delete_model_version_tag(MODEL, each.number, each.key)
        return is_made


class Lack(NamedTuple):
    """What the registry lacks of a decision, as a line. `is_here`: MLflow has the model.

    `is_past`: an earlier decision whose model is not here. The champion is right without it.
    """

    decision: Decision
    line: str
    is_here: bool
    is_past: bool


def lacking(store: Store, decisions: Sequence[Decision]) -> list[Lack]:
    """What the registry lacks of these decisions. Nothing if it has later ones.

    Raises TrackingError.
    """
    with store.errors():
        notes = times(store)
        if not decisions or max(notes, default="") > str(decisions[-1].note["at"]):
            return []
        lines = [
            (each, f"the registry lacks its {each.what} of {each.note['at']}")
            for each in decisions
            if each.note["at"] not in notes
        ]
        present, last = champion(store), decisions[-1]
        if present is None or present.model_sha256 != last.entrant.model_sha256:
            line = f"it is the champion by git, and {ALIAS} in MLflow is another, or none"
            lines.append((last, line))
        return [_lack(store, each, line, each is last) for each, line in lines]


def times(store: Store) -> set[str]:
    """The times of the decisions in the registry, by their notes. Raises TrackingError."""
    with store.errors():
        return {each.at for each in _notes(versions(store))}


def is_behind(store: Store, decisions: Sequence[Decision]) -> bool:
    """Whether the registry lacks the last of these decisions. Raises TrackingError."""
    return any(each.decision is decisions[-1] for each in lacking(store, decisions))


def _lack(store: Store, decision: Decision, line: str, is_last: bool) -> Lack:
    is_here = _can_restore(store, decision.entrant)
    said = line if is_here else f"{line}; its results are not here"
    return Lack(decision, said, is_here, is_past=not (is_here or is_last))


def restore(store: Store, decisions: Sequence[Decision]) -> None:
    """Make the registry as these decisions made it: versions, notes, the champion, former ones.

    A version that is there stays; a new one may have another number than before. Decisions about a
    model that MLflow does not have are left out; without the last decision, the champion stays.
    Raises TrackingError, also if somebody moves the champion meanwhile.
    """
    present: Version | None = None
    before: list[str] = []
    with store.errors():
        expected = champion(store)
        if not lacking(store, decisions):  # somebody has decided meanwhile
            return
        for each in decisions:
            if not _can_restore(store, each.entrant):
                continue
            version = register(store, each.entrant)
            noted = present if present and each.what == "return" else version
            if each.note["at"] not in times(store):
                _Note(noted, each.what, each.note).add(store)
            if each.what == "return":
                while before and before.pop() != version.number:
                    pass
            elif present and present.number != version.number:
                before.append(present.number)
            present = version
        last = decisions[-1].entrant
        if present and present.model_sha256 == last.model_sha256:
            with one_process(store.lock):
                _move(store, present, expected, None, lambda: write_former_numbers(store, before))


def _can_restore(store: Store, entrant: Entrant) -> bool:
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
    there = {str(one.version): one for one in versions(store)}
    before = former_numbers(store)
    while before:
        number = before.pop()
        if number in there and not (present and present.number == number):
            yield list(before), as_version(there[number])
