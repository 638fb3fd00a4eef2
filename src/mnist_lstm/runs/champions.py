"""The decisions about the champion, in a file for git: who became it, when, why, and by whom.

`champions.jsonl` has a line for each promotion and each return, the latest last. MLflow's registry
is made anew from it, as runs are from results. Lines of two people join by themselves:
.gitattributes says so, and the time of a line decides its place.

A kill may come when the registry has a decision and the file does not. So a decision is first
written into PENDING, and the next command that looks at the champion settles it. Whoever makes or
settles a decision in this clone holds a lock, and others wait.
"""

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.runs.unfinished import is_held
from mnist_lstm.tracking.entrant import Decision, Entrant

FILE = "champions.jsonl"
PENDING = ".mlflow.decision"  # in the same form; git ignores it, and the lock
LOCK = ".mlflow.decision.lock"


@contextmanager
def pending(root: Path, decision: Decision, was_made: Callable[[Decision], bool]) -> Iterator[None]:
    """Make a decision in the block, then add it to the file.

    After a UserError, `settle` it; if the store cannot be reached, it stays pending. Raises
    UserError without a decision if an earlier one, which was interrupted, was made meanwhile.
    """
    with _alone(root):
        if earlier := _settle(root, was_made):
            raise UserError(
                f"the champion has changed meanwhile: it is {earlier[-1].entrant.name}, by a "
                f"{earlier[-1].what} that was interrupted; repeat the command"
            )
        write_atomically(root / PENDING, _line(decision))
        try:
            yield
        except UserError:
            with suppress(UserError):
                _settle(root, was_made)
            raise
        write(root, decision)
        (root / PENDING).unlink(missing_ok=True)


def settle(root: Path, was_made: Callable[[Decision], bool]) -> list[Decision]:
    """Add a pending decision to the file, if it was made; returns what was added.

    Raises what `was_made` raises.
    """
    if not (root / PENDING).is_file():
        return []
    with _alone(root):
        return _settle(root, was_made)


def is_being_made(root: Path) -> bool:
    """Whether a process is making or settling a decision now."""
    return is_held(root / LOCK)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with (root / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settle(root: Path, was_made: Callable[[Decision], bool]) -> list[Decision]:
    added = [
        each
        for each in read(root, PENDING)
        if was_made(each) and each.note["at"] not in [one.note["at"] for one in read(root)]
    ]
    for each in added:
        write(root, each)
    (root / PENDING).unlink(missing_ok=True)
    return added


def write(root: Path, decision: Decision) -> None:
    """Add a decision to the file."""
    path = root / FILE
    before = path.read_bytes() if path.is_file() else b""
    write_atomically(path, before + _line(decision))


def time_after(times: Iterable[str]) -> str:
    """The time of a new decision: now, or a millisecond after the last of these if that is later.

    Clocks differ, and the time of a decision is its id and its place.
    """
    latest = datetime.now(UTC)
    for time in times:
        with suppress(ValueError, TypeError, OverflowError):  # none that `promote` has written
            latest = max(latest, datetime.fromisoformat(time) + timedelta(milliseconds=1))
    return latest.astimezone(UTC).isoformat(timespec="milliseconds")


def _line(decision: Decision) -> bytes:
    line = {"what": decision.what, **decision.note, "model": asdict(decision.entrant)}
    return json.dumps(line).encode() + b"\n"


def read(root: Path, name: str = FILE) -> list[Decision]:
    """The decisions in the file, the earliest first. Raises UserError for a line that is none."""
    path = root / name
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            note = json.loads(line)
            what, model = note.pop("what"), note.pop("model")
            entrant = Entrant(**{entry.name: model[entry.name] for entry in fields(Entrant)})
            if what not in ("promotion", "return") or not isinstance(note["at"], str):
                raise ValueError(what)
            found.append(Decision(what, entrant, note))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{path}: line {number} is no decision of `promote`") from None
    return sorted(found, key=lambda each: each.note["at"])
