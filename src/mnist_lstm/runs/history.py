"""Every training that left results: in the workspace, in commits, in DVC's experiments and cache.

DVC's cache of runs has what `dvc repro` made and nobody committed. A file is had by its MD5: from
DVC's cache, from the workspace, or from git, where the small tables are.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnist_lstm import dvc_cache, git
from mnist_lstm.dvc_cache import DvcCache, Files, Lock, outs
from mnist_lstm.pipeline.result_files import Row, read_json, read_rows

TRAIN, EVALUATE = "results/train", "results/evaluate"
# what a result cannot be shown without
NEEDED = {
    TRAIN: {"run.json", "curve.csv", "timing.csv", "model.safetensors"},
    EVALUATE: {"run.json", "metrics.json"},
}
# of DVC's references, the experiments: refs/exps/<their baseline's hash, cut in two>/<name>
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38,}/(.+)")


@dataclass(frozen=True)
class Result:
    """A training and its evaluations, the latest last. `about` is its run.json.

    `commits` and `experiments` are git's commits and the names of DVC's experiments with it in
    their dvc.lock; several experiments have one result where DVC's cache had it already.
    """

    about: Mapping[str, Any]
    training: Files
    evaluations: list[Files] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    experiments: list[str] = field(default_factory=list)


class History:
    """What the repository of the project in `root` has recorded.

    `results` are whole, the earliest first. `partial` are those of the workspace, of commits and of
    experiments of which this machine has the small tables at most; what is known of them is in
    their `about`: name, params and dataset. `head` and `workspace` are one of either.
    """

    def __init__(self, root: Path) -> None:
        """Read all that is recorded. Raises DvcException where `root` is no DVC repository."""
        self.root = root
        self.results: list[Result] = []
        self.partial: list[Result] = []
        self.head: Result | None = None
        self.workspace: Result | None = None
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
        self._tell_where(by_key, locks)

    def lay_out(self, files: Files, folder: Path) -> Path:
        """Write files into a folder, under their names; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, md5 in files.items():
            (folder / Path(path).name).write_bytes(self._content(md5))
        return folder

    def rows(self, files: Files, name: str) -> list[Row]:
        """A table of a training or an evaluation, by its name; no rows where it is not here."""
        path = self._path_of(files, name)
        if path is None:
            return []
        with tempfile.TemporaryDirectory() as scratch:
            return read_rows(self.lay_out({path: files[path]}, Path(scratch)) / name)

    def metrics(self, result: Result) -> dict[str, Any]:
        """metrics.json of a result's latest evaluation; empty where there is none here."""
        files = result.evaluations[-1] if result.evaluations else {}
        path = self._path_of(files, "metrics.json")
        if path is None:
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            return read_json(self.lay_out({path: files[path]}, Path(scratch)) / "metrics.json")

    def committed(self, path: str) -> bytes:
        """What HEAD has at a path of the project; nothing where it has none."""
        (content,) = self._blobs([f"HEAD:./{path}"])
        return content or b""

    def _path_of(self, files: Files, name: str) -> str | None:
        """That of a file of this name, where its content is here."""
        for path, md5 in files.items():
            if Path(path).name == name and self._has(md5):
                return path
        return None

    def _join(self, recorded: list[Files]) -> dict[str, Result]:
        """Make results of what stages made, each once: run.json tells them apart.

        Returns them by the MD5 of the training's run.json.
        """
        trainings: dict[str, Result] = {}
        evaluations: dict[str, tuple[Mapping[str, Any], Files]] = {}
        away = set()
        for files in recorded:
            for folder in (TRAIN, EVALUATE):
                made = _below(folder, files)
                key = made.get(f"{folder}/run.json")
                if key is None or key in trainings or key in evaluations:
                    continue
                names = {Path(path).name for path, md5 in made.items() if self._has(md5)}
                if len(names) < len(made) or not names >= NEEDED[folder]:
                    away.add(key)
                    continue
                about = json.loads(self._content(key))
                if folder == TRAIN:
                    trainings[key] = Result(about, made)
                else:
                    evaluations[key] = (about, made)
        by_id = {result.about["training_id"]: result for result in trainings.values()}
        for about, evaluation in sorted(
            evaluations.values(), key=lambda one: str(one[0].get("ended"))
        ):
            if about["training_id"] in by_id:
                by_id[about["training_id"]].evaluations.append(evaluation)
        self.results = sorted(by_id.values(), key=lambda result: str(result.about["started"]))
        self.elsewhere = len(away - trainings.keys() - evaluations.keys())
        return {key: by_id[result.about["training_id"]] for key, result in trainings.items()}

    def _tell_where(self, by_key: dict[str, Result], locks: Mapping[str, Lock]) -> None:
        """Tell each result its commits and experiments, and make the partial ones."""
        names = self._experiments()
        for commit, lock in locks.items():
            files = _outs_of(lock)
            title = names[commit][0] if commit in names else commit[:7]
            result = self._result_of(by_key, files, title, lock)
            if result:
                result.commits.append(commit)
                result.experiments.extend(names.get(commit, []))
                self.head = result if commit == self._head else self.head
        here, lock = self._workspace(), dvc_cache.workspace_stages(self.root)
        files = _outs_of(lock)
        if here.items() <= files.items():  # where the small tables are all there is of it
            here = files
        self.workspace = self._result_of(by_key, here, "workspace", lock)

    def _result_of(
        self, by_key: dict[str, Result], files: Files, title: str, lock: Lock
    ) -> Result | None:
        """The result that has these files; a new one, a partial, where none that is whole has."""
        training, evaluation = _below(TRAIN, files), _below(EVALUATE, files)
        # without run.json, the curve tells
        key = training.get(f"{TRAIN}/run.json") or training.get(f"{TRAIN}/curve.csv")
        if key is None:
            return None
        if key not in by_key:
            about: dict[str, Any] = {"name": title, "params": _params(lock)}
            about["dataset"] = about["params"].get("fetch", {}).get("dataset")
            if self._has(key) and f"{TRAIN}/run.json" in training:
                about = json.loads(self._content(key))
            by_key[key] = Result(about, training, [evaluation] if evaluation else [])
            self.partial.append(by_key[key])
        return by_key[key]

    def _workspace(self) -> Files:
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


def _below(folder: str, files: Files) -> dict[str, str]:
    return {path: md5 for path, md5 in files.items() if path.startswith(f"{folder}/")}


def _params(lock: Lock) -> dict[str, Any]:
    """What a training depends on of params.yaml, as a dvc.lock has it."""
    found: dict[str, Any] = {}
    for stage in ("fetch", "preprocess", "train"):
        found |= dvc_cache.params(lock.get(stage, {}))
    return found


def _outs_of(lock: Lock) -> Files:
    return {path: md5 for stage in lock.values() for path, md5 in outs(stage).items()}
