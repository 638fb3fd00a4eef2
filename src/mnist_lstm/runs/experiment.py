"""Train one recipe as a DVC experiment, which the present commit then has under a name."""

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from mnist_lstm import UserError, git
from mnist_lstm.files import sha256
from mnist_lstm.pipeline.params import assignments, flatten
from mnist_lstm.runs.child import run_dvc
from mnist_lstm.runs.history import History, Result, experiments

# what dvc says where another one is at work; for the first, it waits itself
BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
# what dvc says of a temporary copy if the path of its cache has other letters
NO_ASCII = re.compile(r"'ascii' codec can't encode")
BEGINS = re.compile(r"[Ss]tage '")  # from this line on, dvc's queue no longer has its experiment
Train = Callable[..., tuple[int, list[str]]]  # `train`, or what takes its arguments
EXPERIMENT = ("exp", "run", "--temp", "--name")
TRIES = 3  # dvc may have trained another command's experiment in its place, and says nothing
PAUSE = 5.0  # seconds until it is asked again
CODE = (
    "src",
    "dvc.yaml",
    "data/own",
    "data/published_curve.csv",
)  # the files that a stage depends on


def name_of(prefix: str, settings: Mapping[str, Any], code: str) -> str:
    """The name of the experiment with these parameters and this code: a prefix and a digest."""
    text = json.dumps([settings, code], sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def code_digest(root: Path) -> str:
    """The hex digest of the files that stages depend on, committed or not."""
    every = ("--cached", "--others", "--exclude-standard")
    names = git.file_names(root, *every, paths=CODE)
    sums = {name: sha256(root / name) for name in names if (root / name).is_file()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def commit_of(root: Path, name: str) -> str | None:
    """The commit of the present commit's experiment with this name; None if there is none."""
    head = git.head(root) or ""
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    return (
        git.git(root, "for-each-ref", "--format=%(objectname)", reference).decode().strip() or None
    )


def is_there(root: Path, name: str) -> bool:
    """Whether the present commit has an experiment with this name."""
    return commit_of(root, name) is not None


def revision_of(root: Path, name: str) -> str | None:
    """What `dvc exp apply` takes for the experiment with this name, of whichever commit.

    None if there is none here. It is the name; but DVC refuses a name that experiments of several
    other commits have, so it is then the commit of one of them, which has the same results.
    """
    found = [commit for commit, names in experiments(root).items() if name in names]
    if len(found) > 1 and not is_there(root, name):
        return found[-1][:7]
    return name if found else None


def to_stderr(line: str) -> None:
    """Print a line of dvc's output on stderr, since stdout is for our own."""
    print(line, file=sys.stderr, flush=True)


def train(
    root: Path,
    name: str,
    settings: Mapping[str, Any],
    here: Mapping[str, Any],
    code: str,
    *,
    force: bool = False,
    report: Callable[[str], object] = to_stderr,
    is_enough: Callable[[], bool] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run the pipeline as an experiment. Returns dvc's exit code and the lines of its output.

    `settings` has the parameters by dotted key; `here` has those of params.yaml; `code` is the
    digest of the code. With `force`, the stages run whatever DVC's cache has. `report` is called
    with each line of dvc's output. The training is ended as by Ctrl-C when `is_enough` returns
    True. `variables` are set in its environment. Raises UserError if the code is another one by
    now, or if DVC can make no experiment in this folder.
    """
    options = [*overrides(settings), *["--force"] * force]
    # files that are verified and need no network, where fetch has to run
    same_data = here.get("fetch.dataset") == settings.get("fetch.dataset")
    mirror = {"MNIST_MIRROR": str(root / "data" / "raw")} if same_data else {}
    begun = False

    def follow(line: str) -> None:
        nonlocal begun
        if not begun and BEGINS.search(line):  # dvc, which may have waited, has copied the code now
            begun = True
            _check_code(root, name, code)
        report(line)

    while True:
        _check_code(root, name, code)
        failed, lines = run_dvc(
            *("--wait-for-lock", *EXPERIMENT, name, *options),
            folder=root,
            environment={**mirror, **os.environ, **(variables or {})},
            report=follow,
            is_enough=is_enough,
        )
        if failed and any(map(NO_ASCII.search, lines)):
            raise UserError(
                f"DVC can make no experiment of this kind in {root}, because the path has letters "
                "beyond ASCII; move the project to another folder"
            )
        if not failed or not any(map(BUSY.search, lines)):
            return failed, lines
        to_stderr("another dvc is at work here; waiting for its end")
        time.sleep(PAUSE)


def _check_code(root: Path, name: str, code: str) -> None:
    """Raises UserError if the code has another digest by now."""
    if code_digest(root) != code:
        raise UserError(
            f"experiment {name}: the code was edited meanwhile; repeat the command, which then "
            "begins with the present code, or undo the edit first"
        )


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """The options that set all parameters, also keys that an earlier params.yaml lacks.

    DVC takes those that are not set from params.yaml, which may be edited until it reads the file.
    """
    return [
        part
        for key, value in settings.items()
        for part in ("--set-param", f"++{key}={json.dumps(value)}")
    ]


class Stopped(Exception):
    """A training was ended, because the command ends."""


class Turn:
    """The turn of a worker to start dvc: until its first stage begins, or it ends.

    Otherwise one dvc would take the experiment of another out of the queue, as the newest.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock, self._mine = lock, False

    def __enter__(self) -> Self:
        self._lock.acquire()
        self._mine = True
        return self

    def hears(self, line: str) -> None:
        """A line of dvc's output."""
        if self._mine and BEGINS.search(line):
            self._mine = False
            self._lock.release()

    def __exit__(self, *_: object) -> None:
        self.hears("stage '")


def not_whole(name: str) -> UserError:
    """The error for an experiment of which a file is not here, or damaged."""
    return UserError(
        f"experiment {name} has no whole results here; `dvc exp pull REMOTE {name}` brings "
        f"those that a DVC remote has; else `dvc exp remove {name}`, and repeat the command"
    )


def result_of(history: History, name: str, settings: Mapping[str, Any]) -> Result:
    """The result of the present commit's experiment with this name.

    Another commit may have an experiment of this name, and one that was forced anew leaves a run of
    its name in DVC's cache. Raises UserError if its files are not here, or if it was trained with
    other parameters than `settings`.
    """
    commit = commit_of(history.root, name)
    found = next((each for each in history.results if commit in each.commits), None)
    if not found:
        raise not_whole(name)
    trained = flatten(found.params).items()
    if others := {key: value for key, value in trained if settings.get(key, value) != value}:
        raise UserError(
            f"experiment {name} was trained with {', '.join(assignments(others))}, which its "
            f"recipe does not have; `dvc exp remove {name}`, and repeat the command"
        )
    return found
