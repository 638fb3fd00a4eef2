"""All trainings that are recorded, with what they left. runs/unfinished has those without an end.

Results are in the workspace, in commits, in DVC's experiments and in DVC's run cache, which has
what `dvc repro` made and nobody committed. runs/recorded_files has their files.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mnist_lstm import UserError, dvc_cache, git
from mnist_lstm.dvc_cache import Files, Lock, deps, outs
from mnist_lstm.pipeline.params import completed
from mnist_lstm.pipeline.result_files import (
    EvaluationRecord,
    FinishedRecord,
    parse_evaluation,
    parse_run,
)
from mnist_lstm.runs.recorded_files import EVALUATE, TRAIN, RecordedFiles

# the files that a whole result has at least
NEEDED = {
    TRAIN: {"run.json", "curve.csv", "timing.csv", "model.safetensors"},
    EVALUATE: {"run.json", "metrics.json"},
}
# DVC's reference of an experiment: refs/exps/<its baseline's hash, cut in two>/<name>
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38,}/(.+)")
FILE_NAME = re.compile(r"[\w-][\w.-]*")  # as the stages name what they write
LISTED = 3  # files in a message


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
        """The sections of params.yaml that it depends on, with the keys added since."""
        return completed(self.record.params)


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
class _Record:
    """A lock, or what the run cache has of one stage, and the file that says so."""

    where: str
    lock: Lock

    @property
    def made(self) -> Files:
        """The files that its stages made."""
        return {path: md5 for entry in self.lock.values() for path, md5 in outs(entry).items()}

    @property
    def read(self) -> Files:
        """The files that its stages read."""
        return {path: md5 for entry in self.lock.values() for path, md5 in deps(entry).items()}


class History(RecordedFiles):
    """What the repository of the project in `root` has recorded.

    `results` are whole, the earliest first. `partial` are those of commits, of experiments and of
    the workspace of which this machine does not have all files, but the small tables at most, those
    of the earliest commit first. `head` and `workspace` are each an item of `results` or `partial`,
    or None; `evaluation` are the files of the workspace's evaluation, and `at_head` those of HEAD's
    dvc.lock.

    `mixed` says that the files in the workspace are not those of one recorded run, and what to do;
    `workspace` is then None.
    """

    def __init__(self, root: Path, note: Callable[[str], object] = lambda _: None) -> None:
        """Read all that is recorded. `note` is called with each line of `unreadable`, at once.

        Raises UserError where DVC cannot open `root`.
        """
        super().__init__(root, note)
        self.results: list[Result] = []
        self.partial: list[Partial] = []
        self.head: Result | Partial | None = None
        self.workspace: Result | Partial | None = None
        self.evaluation: Files = {}
        self.mixed: str | None = None
        self.elsewhere = 0  # trainings and evaluations whose files this machine does not have
        self._head = git.head(root) if self._is_in_git else None
        locks = self._locks()
        self.at_head: Files = locks[self._head or ""].made if self._head in locks else {}
        runs = [_Record(name, {"": entry}) for name, entry in self._cache.recorded_runs()]
        here = _Record("dvc.lock", self._lock())
        # a lock may have been merged by hand: what DVC itself wrote down of a run comes first
        by_key = self._join([*runs, here, *locks.values()])
        self._assign(by_key, locks)
        self._find_workspace(by_key, [here, *runs, *locks.values()])

    def metrics(self, result: Result | Partial) -> dict[str, Any]:
        """metrics.json of a result's latest evaluation; empty where there is none here."""
        return self.metrics_of(result.evaluations[-1] if result.evaluations else {})

    def settings(self, result: Result | Partial) -> Mapping[str, Any]:
        """The parameters of a result's latest evaluation; empty where they are not here."""
        evaluation = result.evaluations[-1] if result.evaluations else {}
        found = self._parsed(evaluation, "run.json", parse_evaluation)
        return found.params if found else {}

    def _join(self, records: Sequence[_Record]) -> dict[str, Result | Partial]:
        """Make a result of each training that stages made, with its evaluations.

        Returns them by the MD5 of the training's run.json.
        """
        trainings: dict[str, Result] = {}
        evaluations: dict[str, tuple[EvaluationRecord, dict[str, str], Files]] = {}
        away, damaged = set(), set()
        for record in records:
            for folder in (TRAIN, EVALUATE):
                made = _below(folder, record.made)
                key = made.get(f"{folder}/run.json")
                if key is None or key in trainings or key in evaluations or key in damaged:
                    continue
                names = {Path(path).name for path, md5 in made.items() if self._has(md5)}
                is_whole = len(names) == len(made) and names >= NEEDED[folder]
                content = self._content(key) if is_whole else None
                if content is None:
                    away.add(key)
                    continue
                name = self._location(key, f"{folder}/run.json")
                try:
                    if folder == TRAIN:
                        trainings[key] = Result(parse_run(content, name), made)
                    else:
                        evaluations[key] = (parse_evaluation(content, name), made, record.read)
                except UserError as error:
                    self.leave_out(str(error))
                    damaged.add(key)
        by_id = {result.record.training_id: result for result in trainings.values()}
        for evaluation, made, read in sorted(evaluations.values(), key=lambda each: each[0].ended):
            result = by_id.get(evaluation.training_id)
            if result and _agree(read, result.training):
                result.evaluations.append(made)
        self.results = sorted(by_id.values(), key=lambda result: result.record.started)
        self.elsewhere = len(away - trainings.keys() - evaluations.keys())
        return {key: by_id[result.record.training_id] for key, result in trainings.items()}

    def _assign(self, by_key: dict[str, Result | Partial], locks: Mapping[str, _Record]) -> None:
        """Give each result its commits and experiments, and make the partial ones."""
        names = self._experiments()
        for commit, lock in locks.items():
            title = names[commit][0] if commit in names else commit[:7]
            if result := self._result_of(by_key, lock, title):
                result.commits.append(commit)
                result.experiments.extend(names.get(commit, []))
                self.head = result if commit == self._head else self.head
        self.partial.reverse()

    def _result_of(
        self, by_key: dict[str, Result | Partial], record: _Record, title: str
    ) -> Result | Partial | None:
        """The result that a lock has; a new partial one where there is none.

        None where the lock has the run.json of a result, and other files beside it.
        """
        training, evaluation = _below(TRAIN, record.made), _below(EVALUATE, record.made)
        # without run.json, the curve tells
        key = training.get(f"{TRAIN}/run.json") or training.get(f"{TRAIN}/curve.csv")
        if key is None:
            return None
        if key not in by_key:
            found = Partial(
                title,
                dvc_cache.dataset(record.lock.get("fetch", {})),
                completed(_params(record.lock)),
                training,
                [evaluation] if evaluation and _agree(record.read, training) else [],
            )
            if run := self._parsed(training, "run.json", parse_run):
                found = replace(
                    found,
                    name=run.name,
                    dataset=run.dataset,
                    params=completed(run.params),
                    record=run,
                )
            by_key[key] = found
            self.partial.append(found)
        if not _agree(by_key[key].training, training):
            self.leave_out(f"{record.where}: the files of {TRAIN} belong to several runs")
            return None
        return by_key[key]

    def _find_workspace(
        self, by_key: dict[str, Result | Partial], records: Sequence[_Record]
    ) -> None:
        """Find the recorded run whose files are in the workspace."""
        found = {}
        for folder in (TRAIN, EVALUATE):
            here = _below(folder, self._here)
            found[folder] = _recorded(here, records)
            if here and not found[folder]:
                self.mixed = self._mixture(records[0])
                return
        training, evaluation = found[TRAIN], found[EVALUATE]
        if training:
            self.workspace = self._result_of(by_key, training, "workspace")
        if self.workspace and evaluation:
            files = _below(EVALUATE, evaluation.made)
            self.evaluation = files if files in self.workspace.evaluations else {}

    def _mixture(self, lock: _Record) -> str:
        """What is said of files in the workspace that are not those of one recorded run."""
        recorded, in_git = lock.made, set()
        if self._is_in_git:
            in_git = set(git.file_names(self.root, paths=[TRAIN, EVALUATE]))
        others = [path for path, md5 in self._here.items() if recorded.get(path) != md5]
        others = [path for path in others if path in recorded] or others
        mends = set()
        for path in others:
            if path in recorded and path not in in_git:
                # the cache has none of a run that was never made here
                is_cached = self._cache.has(recorded[path])
                mends.add("`dvc checkout`" if is_cached else "`dvc repro`")
            elif self.at_head.get(path) == recorded.get(path, ""):
                mends.add("`git checkout results`")
            else:
                mends.add("`dvc repro`")
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        return (
            "the results in the workspace do not belong to one recorded run, so they are not used: "
            f"{', '.join(others[:LISTED])}{more} {'differ' if others[1:] else 'differs'} from "
            "dvc.lock; "
            f"{' and '.join(sorted(mends))} fixes that"
        )

    def _lock(self) -> Lock:
        try:
            return dvc_cache.workspace_stages(self.root)
        except UserError as error:
            self.leave_out(str(error))
            return {}

    def _locks(self) -> dict[str, _Record]:
        """Each dvc.lock in git, by commit, the newest first.

        Of the commits that changed it, on branches, of tags and of experiments, and beside them of
        HEAD and of every experiment: one that DVC's cache had already may have changed nothing.
        """
        if not self._is_in_git:
            return {}
        listed = git.git(self.root, "rev-list", "--all", "--full-history", "--", "dvc.lock")
        heads = [self._head] if self._head else []
        commits = list(dict.fromkeys([*listed.decode().split(), *heads, *self._experiments()]))
        contents = self._blobs([f"{commit}:./dvc.lock" for commit in commits])
        read: dict[bytes | None, Lock] = {}
        locks = {}
        for commit, content in zip(commits, contents, strict=True):
            name = f"{commit[:7]}:dvc.lock"
            if content not in read:
                try:
                    read[content] = dvc_cache.stages(content or b"", name)
                except UserError as error:
                    self.leave_out(str(error))
                    read[content] = {}
            locks[commit] = _Record(name, read[content])
        at = {
            md5: f"{commit}:./{path}"
            for commit, lock in locks.items()
            for folder in (TRAIN, EVALUATE)
            for path, md5 in _below(folder, lock.made).items()
        }
        are_there = git.have_files(self.root, list(at.values()))
        self._in_git = dict(itertools.compress(at.items(), are_there))
        return locks

    def _experiments(self) -> dict[str, list[str]]:
        return experiments(self.root) if self._is_in_git else {}


def experiments(root: Path) -> dict[str, list[str]]:
    """The names of DVC's experiments in a repository, by commit, the earliest first."""
    listed = git.git(
        root,
        *("for-each-ref", "--sort=creatordate", "--format=%(objectname) %(refname)"),
        "refs/exps",
    )
    found: dict[str, list[str]] = {}
    for line in listed.decode().splitlines():
        commit, _, reference = line.partition(" ")
        if named := EXPERIMENT.fullmatch(reference):
            found.setdefault(commit, []).append(named[1])
    return found


def _below(folder: str, files: Files) -> dict[str, str]:
    """The files that lie in a folder."""
    return {
        path: md5
        for path, md5 in files.items()
        if path.startswith(f"{folder}/") and FILE_NAME.fullmatch(path, len(folder) + 1)
    }


def _agree(some: Files, others: Files) -> bool:
    """Whether files that are in both are the same."""
    return all(some[path] == others[path] for path in some.keys() & others.keys())


def _recorded(files: Files, records: Iterable[_Record]) -> _Record | None:
    """The first record that has these files, and no other one in place of any."""
    for record in records:
        if files.keys() & record.made.keys() and _agree(files, record.made):
            return record
    return None


def _params(lock: Lock) -> dict[str, Any]:
    """What a training depends on of params.yaml, as a dvc.lock has it."""
    found: dict[str, Any] = {}
    for stage in ("fetch", "preprocess", "train"):
        found |= dvc_cache.params(lock.get(stage, {}))
    return found
