"""All trainings that are recorded: those that left results, and those that have not ended.

Results are in the workspace, in commits, in DVC's experiments and in DVC's run cache, which has
what `dvc repro` made and nobody committed. Files are looked up by MD5: in DVC's cache, in the
workspace, and in git, which has the small tables.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mnist_lstm import UserError, dvc_cache, git
from mnist_lstm.dvc_cache import DvcCache, Files, Lock, outs
from mnist_lstm.pipeline.result_files import (
    EvaluationRecord,
    FinishedRecord,
    Row,
    RunRecord,
    Training,
    parse_evaluation,
    parse_json,
    parse_rows,
    parse_run,
)

TRAIN, EVALUATE = "results/train", "results/evaluate"
# the files that a whole result has at least
NEEDED = {
    TRAIN: {"run.json", "curve.csv", "timing.csv", "model.safetensors"},
    EVALUATE: {"run.json", "metrics.json"},
}
# DVC's reference of an experiment: refs/exps/<its baseline's hash, cut in two>/<name>
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38,}/(.+)")


@dataclass(frozen=True)
class Result:
    """A training with all its files, and its evaluations, the latest last.

    `commits` and `experiments` are git's commits and the names of DVC's experiments with it in
    their dvc.lock; several experiments have one result where DVC's cache had it already.
    """

    record: FinishedRecord
    training: Files
    evaluations: list[Files] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.record.name

    @property
    def dataset(self) -> str | None:
        """The data set that it was trained on."""
        return self.record.dataset

    @property
    def params(self) -> Mapping[str, Any]:
        """The sections of params.yaml that it depends on."""
        return self.record.params


@dataclass(frozen=True)
class Partial:
    """A training that is recorded, and of which some files are not here.

    Name, data set and parameters are those of its run.json, `record`, where this machine has it;
    else the name is the experiment's or the commit's, and dvc.lock has the others.
    """

    name: str
    dataset: str | None
    params: Mapping[str, Any]
    training: Files
    evaluations: list[Files] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)
    record: FinishedRecord | None = None


@dataclass(frozen=True)
class Unfinished:
    """A training that has not ended, at its last checkpoint; `at_work`: a process trains it."""

    record: RunRecord
    rows: Sequence[Row]  # of curve.csv, so far
    step: int
    seconds: float
    at_work: bool


class History:
    """What the repository of the project in `root` has recorded.

    `results` are whole, the earliest first. `partial` are those of the workspace, of commits and of
    experiments of which this machine does not have all files, but the small tables at most. `head`
    and `workspace` are each an item of `results` or `partial`, or None. `unreadable` says which
    run.json files are damaged or of another version, a line each; they are left out.
    """

    def __init__(self, root: Path) -> None:
        """Read all that is recorded. Raises UserError where DVC cannot open `root`."""
        self.root = root
        self.results: list[Result] = []
        self.partial: list[Partial] = []
        self.head: Result | Partial | None = None
        self.workspace: Result | Partial | None = None
        self.unreadable: list[str] = []
        self.elsewhere = 0  # trainings and evaluations whose files this machine does not have
        self._cache = DvcCache(root)
        self._is_in_git = git.is_repository(root)
        self._head = git.head(root) if self._is_in_git else None
        self._in_git: dict[str, str] = {}
        self._in_workspace = {
            hashlib.md5(path.read_bytes()).hexdigest(): path
            for folder in (TRAIN, EVALUATE)
            for path in (root / folder).glob("*.*")
            if path.name != ".gitignore"
        }
        locks = self._locks()
        made = [outs(stage) for lock in locks.values() for stage in lock.values()]
        runs = map(outs, self._cache.recorded_runs())
        by_key = self._join([self._workspace(), *runs, *made])
        self._assign(by_key, locks)

    def lay_out(self, files: Files, folder: Path) -> Path:
        """Write files into a folder, under their names; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, md5 in files.items():
            (folder / Path(path).name).write_bytes(self._content(md5))
        return folder

    def content(self, files: Files, name: str) -> bytes | None:
        """A file of a training or an evaluation, by its name; None where it is not here."""
        for path, md5 in files.items():
            if Path(path).name == name and self._has(md5):
                return self._content(md5)
        return None

    def rows(self, files: Files, name: str) -> list[Row]:
        """A table of a training or an evaluation, by its name; no rows where it is not here."""
        content = self.content(files, name)
        return [] if content is None else parse_rows(content)

    def metrics(self, result: Result | Partial) -> dict[str, Any]:
        """metrics.json of a result's latest evaluation; empty where there is none here."""
        files = result.evaluations[-1] if result.evaluations else {}
        content = self.content(files, "metrics.json")
        return {} if content is None else parse_json(content, f"metrics.json of {result.name}")

    def committed(self, path: str) -> bytes:
        """What HEAD has at a path of the project; nothing where it has none."""
        (content,) = self._blobs([f"HEAD:./{path}"])
        return content or b""

    def _join(self, recorded: list[Files]) -> dict[str, Result | Partial]:
        """Make a result of each training that stages made, with its evaluations.

        Returns them by the MD5 of the training's run.json.
        """
        trainings: dict[str, Result] = {}
        evaluations: dict[str, tuple[EvaluationRecord, Files]] = {}
        away, damaged = set(), set()
        for files in recorded:
            for folder in (TRAIN, EVALUATE):
                made = _below(folder, files)
                key = made.get(f"{folder}/run.json")
                if key is None or key in trainings or key in evaluations or key in damaged:
                    continue
                names = {Path(path).name for path, md5 in made.items() if self._has(md5)}
                if len(names) < len(made) or not names >= NEEDED[folder]:
                    away.add(key)
                    continue
                content, name = self._content(key), self._location(key, f"{folder}/run.json")
                try:
                    if folder == TRAIN:
                        trainings[key] = Result(parse_run(content, name), made)
                    else:
                        evaluations[key] = (parse_evaluation(content, name), made)
                except UserError as error:
                    self.unreadable.append(str(error))
                    damaged.add(key)
        by_id = {result.record.training_id: result for result in trainings.values()}
        for evaluation, written in sorted(evaluations.values(), key=lambda pair: pair[0].ended):
            if evaluation.training_id in by_id:
                by_id[evaluation.training_id].evaluations.append(written)
        self.results = sorted(by_id.values(), key=lambda result: result.record.started)
        self.elsewhere = len(away - trainings.keys() - evaluations.keys())
        return {key: by_id[result.record.training_id] for key, result in trainings.items()}

    def _assign(self, by_key: dict[str, Result | Partial], locks: Mapping[str, Lock]) -> None:
        """Give each result its commits and experiments, and make the partial ones."""
        names = self._experiments()
        for commit, lock in locks.items():
            files = _outs_of(lock)
            title = names[commit][0] if commit in names else commit[:7]
            result = self._result_of(by_key, files, title, lock)
            if result:
                result.commits.append(commit)
                result.experiments.extend(names.get(commit, []))
                self.head = result if commit == self._head else self.head
        here: Files = self._workspace()
        lock = dvc_cache.workspace_stages(self.root)
        files = _outs_of(lock)
        if here.items() <= files.items():  # the workspace has the small tables alone
            here = files
        self.workspace = self._result_of(by_key, here, "workspace", lock)

    def _result_of(
        self, by_key: dict[str, Result | Partial], files: Files, title: str, lock: Lock
    ) -> Result | Partial | None:
        """The result that has these files; a new partial one where there is none."""
        training, evaluation = _below(TRAIN, files), _below(EVALUATE, files)
        # without run.json, the curve tells
        key = training.get(f"{TRAIN}/run.json") or training.get(f"{TRAIN}/curve.csv")
        if key is None:
            return None
        if key not in by_key:
            params = _params(lock)
            partial = Partial(
                title,
                params.get("fetch", {}).get("dataset"),
                params,
                training,
                [evaluation] if evaluation else [],
            )
            if self._has(key) and f"{TRAIN}/run.json" in training:
                name = self._location(key, f"{TRAIN}/run.json")
                with suppress(UserError):  # it is among the unreadable ones already
                    record = parse_run(self._content(key), name)
                    partial = replace(
                        partial,
                        name=record.name,
                        dataset=record.dataset,
                        params=record.params,
                        record=record,
                    )
            by_key[key] = partial
            self.partial.append(partial)
        return by_key[key]

    def _location(self, md5: str, path: str) -> str:
        """How a message names a file: by its path, and by its MD5 where it is in DVC's cache."""
        return path if md5 in self._in_workspace else f"{path} of MD5 {md5} in DVC's cache"

    def _workspace(self) -> dict[str, str]:
        return {str(path.relative_to(self.root)): md5 for md5, path in self._in_workspace.items()}

    def _locks(self) -> dict[str, Lock]:
        """The stages of each dvc.lock in git, by commit, the newest first.

        Of the commits that changed it, on branches, of tags and of experiments, and beside them of
        HEAD and of every experiment: one that DVC's cache had already may have changed nothing.
        """
        if not self._is_in_git:
            return {}
        listed = git.git(self.root, "rev-list", "--all", "--full-history", "--", "dvc.lock")
        heads = [self._head] if self._head else []
        commits = list(dict.fromkeys([*listed.decode().split(), *heads, *self._experiments()]))
        contents = self._blobs([f"{commit}:./dvc.lock" for commit in commits])
        read = {content: dvc_cache.stages(content or b"") for content in set(contents)}
        locks: dict[str, Lock] = dict(zip(commits, map(read.__getitem__, contents), strict=True))
        for commit, lock in locks.items():
            self._in_git |= {md5: f"{commit}:./{path}" for path, md5 in _outs_of(lock).items()}
        return locks

    def _experiments(self) -> dict[str, list[str]]:
        """The names of DVC's experiments, by commit, the earliest first."""
        if not self._is_in_git:
            return {}
        listed = git.git(
            self.root,
            *("for-each-ref", "--sort=creatordate", "--format=%(objectname) %(refname)"),
            "refs/exps",
        )
        found: dict[str, list[str]] = {}
        for line in listed.decode().splitlines():
            commit, _, reference = line.partition(" ")
            if named := EXPERIMENT.fullmatch(reference):
                found.setdefault(commit, []).append(named[1])
        return found

    def _has(self, md5: str) -> bool:
        return self._cache.has(md5) or md5 in self._in_workspace or bool(self._in_commit(md5))

    def _content(self, md5: str) -> bytes:
        content = self._cache.content(md5)
        if content is None and (path := self._in_workspace.get(md5)):
            content = path.read_bytes() if path.is_file() else None
        return self._in_commit(md5) if content is None else content

    def _in_commit(self, md5: str) -> bytes:
        """A file that a commit with that sum in its dvc.lock has; nothing where it has another."""
        (content,) = self._blobs([self._in_git[md5]]) if md5 in self._in_git else [b""]
        return content if content and dvc_cache.is_of(md5, content) else b""

    def _blobs(self, names: Sequence[str]) -> list[bytes | None]:
        """The content of each `<commit>:<path>`; None for one that is not there."""
        return git.blobs(self.root, names) if self._is_in_git else [None] * len(names)


def unfinished(checkpoints: Path) -> list[Unfinished]:
    """The trainings with a checkpoint in the folder .checkpoints, the earliest first.

    Only the headers of the checkpoints are read, which needs neither torch nor the tensors. A file
    that is no checkpoint is left out: the training that meets it reports it.
    """
    found = []
    for path in checkpoints.glob("*/checkpoint.safetensors"):
        try:
            state = json.loads(_header(path)["__metadata__"]["checkpoint"])
            training = Training.from_state(state["record"], str(path))
            at_work = is_held(path.with_name("lock"))
            step, seconds = state["step"], state["seconds"]
            found.append(Unfinished(training.about, training.rows, step, seconds, at_work))
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda training: training.record.started)


def is_held(lock: Path) -> bool:
    """Whether a process has the lock of a training, the file `lock` beside its checkpoint."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _below(folder: str, files: Files) -> dict[str, str]:
    return {path: md5 for path, md5 in files.items() if path.startswith(f"{folder}/")}


def _params(lock: Lock) -> dict[str, Any]:
    """What a training depends on of params.yaml, as a dvc.lock has it."""
    found: dict[str, Any] = {}
    for stage in ("fetch", "preprocess", "train"):
        found |= dvc_cache.params(lock.get(stage, {}))
    return found


def _outs_of(lock: Lock) -> dict[str, str]:
    return {path: md5 for stage in lock.values() for path, md5 in outs(stage).items()}


def _header(path: Path) -> Any:
    """The header of a safetensors file: its length in eight bytes, the lowest first, and JSON."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path}: no safetensors")
        return json.loads(file.read(size))
