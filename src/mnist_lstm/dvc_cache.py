"""The one reader of what DVC keeps: locks, the run cache and the object cache."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mnist_lstm import UserError

Files = Mapping[str, str]  # MD5 sums, by path below the project
Entry = Mapping[str, Any]  # what a lock or the run cache has of one stage: cmd, deps, params, outs
Lock = Mapping[str, Entry]  # the stages of a dvc.lock

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first takes an eighth of the time


def stages(content: bytes) -> dict[str, Entry]:
    """The stages that the content of a dvc.lock records."""
    found: dict[str, Entry] = _parsed(content).get("stages", {})
    return found


def _parsed(content: bytes) -> dict[str, Any]:
    loader = _Loader(content)
    try:
        return loader.get_single_data() or {}
    finally:
        loader.dispose()


def workspace_stages(root: Path) -> dict[str, Entry]:
    """The stages of the dvc.lock in a project's folder; none where there is no such file."""
    path = root / "dvc.lock"
    return stages(path.read_bytes()) if path.is_file() else {}


def outs(entry: Entry) -> dict[str, str]:
    """The files that a stage made, by path: their MD5 sums."""
    return {out["path"]: out["md5"] for out in entry.get("outs", []) if "md5" in out}


def params(entry: Entry) -> dict[str, Any]:
    """The sections of params.yaml that a stage was run with."""
    values: dict[str, Any] = entry.get("params", {}).get("params.yaml", {})
    return values


class DvcCache:
    """The caches of the DVC repository in a folder."""

    def __init__(self, root: Path) -> None:
        """Raises UserError where DVC cannot open `root`: it needs .dvc and a git repository."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo  # half a second's import

        try:
            with Repo(str(root)) as repo:
                self._path_of = repo.cache.local.oid_to_path
                self._runs = Path(repo.stage_cache.cache_dir)
        except DvcException as error:
            raise UserError(
                f"{root}: DVC cannot open the project: {error}; clone the project with git, "
                "or make a repository of this folder: `git init`"
            ) from None

    def has(self, md5: str) -> bool:
        """Whether the object cache has a file of this MD5."""
        return self._path(md5).is_file()

    def content(self, md5: str) -> bytes | None:
        """The file that the object cache has under this MD5; None where it has none."""
        path = self._path(md5)
        return path.read_bytes() if path.is_file() else None

    def recorded_runs(self) -> Iterator[Entry]:
        """What the run cache has recorded, the latest first: one stage run each."""
        paths = self._runs.glob("*/*/*")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
            yield _parsed(path.read_bytes())

    def _path(self, md5: str) -> Path:
        return Path(self._path_of(md5))


def is_of(md5: str, content: bytes | None) -> bool:
    """Whether a content has this MD5."""
    return content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
