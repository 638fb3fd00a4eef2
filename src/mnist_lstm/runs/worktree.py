"""Restore a run's code, parameters and data in a temporary worktree, and run the pipeline there.

The folder is `mnist-lstm-reproduce-…` in the system's temporary folder. In it, `code` is the git
worktree and `cache` a separate DVC cache. A process holds `lock` while it works there.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import yaml

from mnist_lstm import UserError, dvc_cache, git
from mnist_lstm.data.mirrors import folder_of
from mnist_lstm.dvc_cache import DvcCache, Entry, Files, workspace_stages
from mnist_lstm.git import GitError
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.pipeline.params import value_at, with_values
from mnist_lstm.pipeline.result_files import RunRecord
from mnist_lstm.runs.child import run_dvc, undisturbed
from mnist_lstm.runs.history import FILE_NAME

PREFIX = "mnist-lstm-reproduce-"
CONFIG = (
    # DVC takes the worktree of a submodule for another repository; nothing here needs git
    "[cache]\n    dir = {0}/cache\n"
    "[core]\n    analytics = false\n    no_scm = true\n    site_cache_dir = {0}/site\n"
)
# variables that would lead git, dvc or a stage to another folder, or change the number of threads
NOT_PASSED_ON = (
    *("GIT_", "DVC_EXP_", "DVC_STAGE", "MKL_NUM_THREADS"),
    *("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"),  # without the second, the store is in the worktree
)
HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
RAW_FILE = re.compile(rf"data/raw/{FILE_NAME.pattern}")


@dataclass
class ForeignCode:
    """Code that nobody here has seen: what it is, where it can be read, and its changes.

    `changes` are lines added and removed by file, and new modes; `diff` is all of it. Both may have
    characters that a terminal obeys.
    """

    kinds: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    diff: str = ""

    def add(self, kind: str, place: str, changes: bytes, diff: bytes) -> None:
        """Add code of one kind, with what git prints about it."""
        self.kinds.append(kind)
        self.places.append(place)
        self.changes += changes.decode(errors="surrogateescape").rstrip("\n").split("\n")
        self.diff += diff.decode(errors="surrogateescape")


class Scratch:
    """A temporary worktree in which a run is restored. `project` is the project's folder in it.

    Who works there sets `has_outcome` once there is something to look at.
    """

    def __init__(self, root: Path, folder: Path, lock: TextIO) -> None:
        self.root, self.folder, self._lock = root, folder, lock
        self.has_outcome = False
        below = os.fsdecode(git.git(root, "rev-parse", "--show-prefix")).rstrip("\n")
        self.project = folder / "code" / below

    def check_out(self, record: RunRecord) -> None:
        """Check out the run's commit. Raises UserError if it is not here, or is no hash."""
        commit = record.commit
        if not commit:
            raise UserError(f"{record.name} was made outside of git, so its code was not recorded")
        if not HASH.fullmatch(commit):
            raise UserError(
                f"{record.name} was made from commit {commit!r}, which is no full hash: somebody "
                "changed its run.json; put the hash back there, or repeat another run"
            )
        if not git.has_commit(self.root, commit):
            raise UserError(
                f"{record.name} was made from commit {commit}, which is not in this repository; "
                f"`git fetch REMOTE {commit}` gets it from a repository that has it"
            )
        worktree = str(self.folder / "code")
        git.git(self.root, "worktree", "add", "--quiet", "--detach", worktree, commit)

    def foreign_code(self, record: RunRecord) -> ForeignCode:
        """What a run of somebody else would run: its patch, and its commit if no branch has it.

        Raises as `apply` does.
        """
        commit = record.commit or ""
        foreign = ForeignCode()
        if not git.on_a_branch(self.root, commit):
            between = (self.root, "diff-tree", "-r", "--no-renames")
            listed = git.git(*between, "--numstat", "--summary", "HEAD", commit)
            diff = git.git(*between, *git.DIFF, "HEAD", commit)
            kind, where = "a commit that no branch here has", f"`git diff HEAD {commit}`"
            foreign.add(kind, where, listed, diff)
        if record.patch:
            listed = self._apply(record, "--numstat", "--summary")
            kind, where = "a patch", "`patch` in train/run.json of this run in MLflow"
            foreign.add(kind, where, listed, record.patch_bytes)
        return foreign

    def apply(self, record: RunRecord) -> None:
        """Apply the run's patch, if it has one. Raises UserError if it does not apply."""
        if record.patch:
            self._apply(record)
        # without dvc.lock, dvc takes no earlier result: the worktree's code makes all of them
        (self.project / "dvc.lock").unlink(missing_ok=True)
        local = self.project / ".dvc" / "config.local"
        local.parent.mkdir(exist_ok=True)
        local.write_text(CONFIG.format(self.folder))

    def _apply(self, record: RunRecord, *options: str) -> bytes:
        try:
            return git.git(
                self.folder / "code",
                *("apply", "--whitespace=nowarn", *options),
                input=record.patch_bytes,
            )
        except GitError as error:
            raise UserError(
                f"{record.name} was made from changed code, and its patch does not apply to "
                f"commit {(record.commit or '')[:10]}: {error}"
            ) from None

    def restore_params(self, record: RunRecord, evaluation_params: Mapping[str, Any]) -> None:
        """Write params.yaml: the run's values, and the commit's for keys that the run lacks."""
        path = self.project / "params.yaml"
        there = strict_yaml.read(path) if path.is_file() else {}
        known = there if isinstance(there, Mapping) else {}
        sections = params(known, record, evaluation_params)
        text = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")

    def restore_data(self, record: RunRecord) -> bool:
        """Copy the raw files to where preprocess reads them. Returns whether they were found.

        The files are those of a recorded fetch of the same data set, from DVC's cache or data/raw.
        The user's own images are copied too, because fetch may have to run. Raises UserError if one
        of them cannot be copied.
        """
        own = self.root / "data" / "own"
        if record.dataset == "own" and own.is_dir():
            _copy(own, self.project / "data" / "own")
        cache = DvcCache(self.root)
        for files in _raw_files(self.root, cache, record):
            contents = {path: self._content(cache, path, md5) for path, md5 in files.items()}
            if contents and all(content is not None for content in contents.values()):
                for path, content in contents.items():
                    (self.project / path).parent.mkdir(parents=True, exist_ok=True)
                    (self.project / path).write_bytes(content or b"")
                return True
        return False

    def run(
        self, threads: int, report: Callable[[str], object], *, has_data: bool
    ) -> tuple[int, list[str]]:
        """Run `dvc repro` there with this number of threads. Returns its exit code and its lines.

        With `has_data`, fetch is left out. `report` is called with each line of the output. Every
        process is ended before this method returns or raises.
        """
        return run_dvc(
            *("repro", "--force", *(["--downstream", "preprocess"] if has_data else [])),
            folder=self.project,
            environment=self._environment(threads),
            report=report,
            # if this process is killed, dvc still holds the lock, so that nobody removes its folder
            open_files=[self._lock.fileno()],
        )

    def _content(self, cache: DvcCache, path: str, md5: str) -> bytes | None:
        """The content with this MD5, from DVC's cache or the workspace; None if neither has it."""
        file = self.root / path
        for content in (cache.content(md5), file.read_bytes() if file.is_file() else None):
            if dvc_cache.is_of(md5, content):
                return content
        return None

    def _environment(self, threads: int) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(NOT_PASSED_ON)}
        mirror = kept.get("MNIST_MIRROR")
        if mirror and "://" not in mirror:  # a relative path starts at the project's folder
            kept["MNIST_MIRROR"] = str(folder_of(mirror, self.root))
        return kept | {
            "DVC_ROOT": str(self.project),
            "OMP_NUM_THREADS": str(threads),
        }


@contextmanager
def scratch(root: Path, *, keep: bool = False) -> Iterator[Scratch]:
    """A folder for a run of the project in `root`. It is removed after the block, unless `keep`.

    An error in the block before there is an outcome removes it in any case; an interrupt does not.
    Folders that killed processes left behind are removed first.
    """
    for worktree in _worktrees(root):
        if worktree.parent.name.startswith(PREFIX):
            _remove_if_left(root, worktree.parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            place = Scratch(root, folder, lock)
            try:
                yield place
            except Exception:
                keep = keep and place.has_outcome
                raise
        finally:
            with undisturbed():
                if keep:
                    (folder / "lock").unlink()  # without a lock, later calls keep the folder
                else:
                    _remove(root, folder)


def params(
    there: Mapping[str, Any], record: RunRecord, evaluation_params: Mapping[str, Any]
) -> dict[str, Any]:
    """The params.yaml of a run: the sections of its commit, with the run's own values.

    `there` is the commit's params.yaml; `evaluation_params` has dotted keys. A run on the CPU is
    repeated on the CPU, even if `auto` would choose a GPU here.
    """
    sections = dict(there)
    for name, values in record.params.items():
        # of the section fetch, a training records only the data set
        before = sections.get(name) if name == "fetch" else None
        sections[name] = {**(before or {}), **values} if isinstance(values, Mapping) else values
    values = dict(evaluation_params)
    if record.device.startswith("cpu") and value_at(sections, "train.device") == "auto":
        values["train.device"] = "cpu"
    return with_values(sections, values)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except shutil.Error as error:  # has no errno, but a list: of a dangling link, or a full disk
        file, _, why = error.args[0][0]
        reason = re.sub(r"^\[Errno \d+\] ([^:]+).*", r"\1", why, flags=re.DOTALL)
        raise UserError(
            f"{os.path.relpath(file)}: cannot be copied to the temporary worktree ({reason}); put "
            "that right and run again"
        ) from None


def _raw_files(root: Path, cache: DvcCache, record: RunRecord) -> Iterator[Files]:
    """The files of each recorded fetch of the run's data set: MD5 by path, the likeliest first."""
    entries: list[Entry] = []
    (lock,) = git.blobs(root, [f"{record.commit}:./dvc.lock"])
    for read in (partial(dvc_cache.stages, lock or b"", ""), partial(workspace_stages, root)):
        with suppress(UserError):  # one that is damaged tells nothing
            entries.append(read().get("fetch", {}))
    for entry in (*entries, *(entry for _, entry in cache.recorded_runs())):
        if "src/fetch.py" in str(entry.get("cmd")) and dvc_cache.dataset(entry) == record.dataset:
            files = dvc_cache.outs(entry)
            # an entry that came from a remote may name any file of this machine
            if all(RAW_FILE.fullmatch(path) for path in files):
                yield files


def _worktrees(root: Path) -> list[Path]:
    lines = os.fsdecode(git.git(root, "worktree", "list", "--porcelain")).splitlines()
    return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]


def _remove_if_left(root: Path, folder: Path) -> None:
    """Remove the folder of a killed process. A folder in use, or kept on purpose, stays."""
    try:
        with (folder / "lock").open("r+") as lock:  # NFS locks only what is open for writing
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(root, folder)
    except (BlockingIOError, PermissionError):
        return  # a process is using the folder, or it is another user's
    except FileNotFoundError:
        if not folder.exists():  # the system emptied its temporary folder
            _remove(root, folder)


def _remove(root: Path, folder: Path) -> None:
    """Remove a folder and git's record of its worktree."""
    if folder / "code" in _worktrees(root):
        git.git(root, "worktree", "remove", "--force", "--force", str(folder / "code"))
    shutil.rmtree(folder, ignore_errors=True)
