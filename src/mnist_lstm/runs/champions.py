"""The decisions about the champion, in a file for git: who became it, when, why, and by whom.

`champions.jsonl` has a line for each promotion and each return, the latest last. MLflow's registry
is made anew from it, as runs are from results. Lines of two people join by themselves:
.gitattributes says so, and the time of a line decides its place.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.tracking.entrant import Decision, Entrant

FILE = "champions.jsonl"


def write(root: Path, decision: Decision) -> None:
    """Add a decision to the file."""
    path = root / FILE
    before = path.read_bytes() if path.is_file() else b""
    line = json.dumps({"what": decision.what, **decision.note, "model": asdict(decision.entrant)})
    write_atomically(path, before + line.encode() + b"\n")


def read(root: Path) -> list[Decision]:
    """The decisions in the file, the earliest first. Raises UserError for a line that is none."""
    path = root / FILE
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
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
