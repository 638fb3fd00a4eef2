"""Every training that left results: in the workspace, in commits, in DVC's experiments and cache.

DVC's cache of runs has what `dvc repro` made and nobody committed. A file is had by its MD5: from
DVC's cache, from the workspace, or from git, where the small tables are.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

Files = Mapping[str, str]  # MD5 sums, by path below the project

TRAIN, EVALUATE = "results/train", "results/evaluate"
# what a result cannot be shown without
NEEDED = {
    TRAIN: {"run.json", "curve.csv", "timing.csv", "model.safetensors"},
    EVALUATE: {"run.json", "metrics.json"},
}


@dataclass(frozen=True)
class Result:
    """A training and its evaluations. `about` is its run.json."""

    about: Mapping[str, Any]
    training: Files
    evaluations: list[Files] = field(default_factory=list)


class History:
    """What the repository of the project in `root` has recorded."""

    def __init__(self, root: Path) -> None:
        """Read all that is recorded. Raises DvcException where `root` is no DVC repository."""
        from dvc.repo import Repo  # half a second's import

        self.root = root
        self.results: list[Result] = []
        self.elsewhere = 0  # trainings and evaluations whose files this machine does not have
        with Repo(str(root)) as repo:
            self._cached = repo.cache.local.oid_to_path
            runs = Path(repo.stage_cache.cache_dir)
        self._in_git: dict[str, str] = {}
        self._in_workspace = {
            hashlib.md5(path.read_bytes()).hexdigest(): path
            for folder in (TRAIN, EVALUATE)
            for path in (root / folder).glob("*.*")
            if path.name != ".gitignore"
        }
        self._join([*self._workspace(), *self._runs(runs), *self._commits()])

    def lay_out(self, files: Files, folder: Path) -> Path:
        """Write files into a folder, under their names; returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, md5 in files.items():
            (folder / Path(path).name).write_bytes(self._content(md5))
        return folder

    def _join(self, recorded: list[Files]) -> None:
        """Make results of what stages made, each once: run.json tells them apart."""
        trainings: dict[str, Result] = {}
        evaluations: dict[str, tuple[str, Files]] = {}
        away = set()
        for files in recorded:
            for folder in (TRAIN, EVALUATE):
                made = {path: md5 for path, md5 in files.items() if path.startswith(f"{folder}/")}
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
                    evaluations[key] = (about["training_id"], made)
        by_id = {result.about["training_id"]: result for result in trainings.values()}
        for training_id, evaluation in evaluations.values():
            if training_id in by_id:
                by_id[training_id].evaluations.append(evaluation)
        self.results = sorted(by_id.values(), key=lambda result: str(result.about["started"]))
        self.elsewhere = len(away - trainings.keys() - evaluations.keys())

    def _workspace(self) -> Iterator[Files]:
        yield {str(path.relative_to(self.root)): md5 for md5, path in self._in_workspace.items()}

    def _runs(self, folder: Path) -> Iterator[Files]:
        for path in folder.glob("*/*/*"):
            yield _outs(yaml.safe_load(path.read_bytes()))

    def _commits(self) -> Iterator[Files]:
        """Of every commit that changed dvc.lock: on branches, of tags and of experiments."""
        listed = self._git("rev-list", "--all", "--full-history", "--", "dvc.lock").decode()
        commits = listed.split()
        locks = self._blobs([f"{commit}:./dvc.lock" for commit in commits])
        for commit, content in zip(commits, locks, strict=True):
            lock = yaml.safe_load(content) or {}
            for stage in lock.get("stages", {}).values():
                files = _outs(stage)
                self._in_git |= {md5: f"{commit}:./{path}" for path, md5 in files.items()}
                yield files

    def _has(self, md5: str) -> bool:
        cached = Path(self._cached(md5)).is_file()
        return cached or md5 in self._in_workspace or bool(self._committed(md5))

    def _content(self, md5: str) -> bytes:
        for path in (Path(self._cached(md5)), self._in_workspace.get(md5)):
            if path and path.is_file():
                return path.read_bytes()
        return self._committed(md5)

    def _committed(self, md5: str) -> bytes:
        """A file that a commit with that sum in its dvc.lock has; nothing where it has another."""
        (content,) = self._blobs([self._in_git[md5]]) if md5 in self._in_git else [b""]
        return content if hashlib.md5(content).hexdigest() == md5 else b""

    def _blobs(self, names: Sequence[str]) -> list[bytes]:
        """The contents of `<commit>:<path>` each, nothing for one that is not there."""
        printed = BytesIO(self._git("cat-file", "--batch", input="\n".join(names).encode()))
        contents = []
        for _ in names:
            header = printed.readline().split()
            is_there = header[1:2] == [b"blob"]
            contents.append(printed.read(int(header[2])) if is_there else b"")
            printed.read(is_there)  # a line's end follows
        return contents

    def _git(self, *arguments: str, input: bytes = b"") -> bytes:
        """What git prints; nothing outside of a repository."""
        return subprocess.run(
            ["git", *arguments], cwd=self.root, input=input, capture_output=True, check=False
        ).stdout


def _outs(stage: Mapping[str, Any]) -> Files:
    """The files that an entry of dvc.lock, or of the cache of runs, says a stage made."""
    return {out["path"]: out["md5"] for out in stage.get("outs", []) if "md5" in out}
