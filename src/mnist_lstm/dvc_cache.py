"""The one reader of what DVC keeps: locks, the run cache and the object cache."""

import hashlib
import itertools
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from mnist_lstm import UserError, git

Files = Mapping[str, str]  # MD5 sums, by path below the project
Entry = Mapping[str, Any]  # what a lock or the run cache has of one stage: cmd, deps, params, outs
Lock = Mapping[str, Entry]  # the stages of a dvc.lock

MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
# What a plain scalar is, by its first character (PyYAML's form). DVC reads and writes YAML 1.2, and
# PyYAML reads 1.1, in which 0777 is 511, 1:30 is 90, and 1e-05 is text.
SCALARS = {
    first: [
        (f"tag:yaml.org,2002:{tag}", re.compile(f"({pattern})$"))
        for tag, firsts, pattern in (
            ("null", ("", *"~nN"), r"~|null|Null|NULL|"),
            ("bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
            # Python does not parse thousands of digits
            ("int", "-+0123456789", r"[-+]?(0|[1-9][0-9_]{0,99})"),
            (
                "float",
                "-+.0123456789",
                r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?",
            ),
            ("float", "-123456789", r"-?[1-9]e[-+][0-9]{2,3}"),  # 0.00001 as DVC writes it
            ("float", "-+.", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        )
        if first in firsts
    ]
    for first in ("", *"~nNtTfF-+.0123456789")
}
_Loader = type(
    "_Loader",
    (getattr(yaml, "CSafeLoader", yaml.SafeLoader),),  # the first takes an eighth of the time
    {"yaml_implicit_resolvers": SCALARS},
)


def stages(content: bytes, name: str) -> dict[str, Entry]:
    """The stages that the content of a dvc.lock records. Raises UserError with that name."""
    found = parsed(content, name).get("stages") or {}
    return {stage: _checked(entry, name) for stage, entry in _mapping(found, name).items()}


def workspace_stages(root: Path) -> dict[str, Entry]:
    """The stages of the dvc.lock in a project's folder; none where there is no such file.

    Raises UserError where it is damaged.
    """
    path = root / "dvc.lock"
    try:
        return stages(path.read_bytes(), path.name) if path.is_file() else {}
    except UserError as error:
        raise UserError(f"{error}; mend it") from None


def outs(entry: Entry) -> dict[str, str]:
    """The files that a stage made, by path: their MD5 sums."""
    return _sums(entry.get("outs", []))


def deps(entry: Entry) -> dict[str, str]:
    """The files that a stage read, by path: their MD5 sums."""
    return _sums(entry.get("deps", []))


def params(entry: Entry) -> dict[str, Any]:
    """The sections of params.yaml that a stage was run with."""
    values: dict[str, Any] | None = entry.get("params", {}).get("params.yaml")
    return values or {}


def dataset(entry: Entry) -> str | None:
    """The data set with which `fetch` was run, or None."""
    section = params(entry).get("fetch")
    name = section.get("dataset") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None


class DvcCache:
    """The caches of the DVC repository in a folder.

    `note` is called with a line about each file there that is damaged. Such a file counts as none.
    """

    def __init__(self, root: Path, note: Callable[[str], object] = lambda _: None) -> None:
        """Raises UserError where DVC cannot open `root`: it needs .dvc and a git repository.

        It also writes to .dvc/tmp, and to its folder in /var/tmp/dvc; another user may have made
        both.
        """
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
        except (OSError, sqlite3.Error) as error:
            refused = Path(error.filename or "/") if isinstance(error, OSError) else Path("/")
            if refused.is_relative_to(root.absolute() / ".dvc"):
                raise UserError(
                    f"{root}: DVC cannot write to {refused} ({error}); clone the project, and work "
                    "in the clone"
                ) from None
            raise UserError(
                f"{root}: DVC cannot open its folder for this project, which another user may have "
                f"made ({error}); give it one of your own: `dvc config --global "
                "core.site_cache_dir ~/.dvc-site`"
            ) from None
        self._root = root.resolve()
        self._note = note

    def has(self, md5: str) -> bool:
        """Whether the object cache has a file under this MD5; only `content` reads it."""
        return self._path(md5).is_file()

    def content(self, md5: str) -> bytes | None:
        """The file of this MD5 that the object cache has; None where it has none."""
        path = self._path(md5)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(f"{self.name_of(md5)}: {error.strerror}")
            return None
        if is_of(md5, content):
            return content
        self._note(f"{self.name_of(md5)}: damaged: its MD5 is not the one in its name; delete it")
        return None

    def recorded_runs(self) -> Iterator[tuple[str, Entry]]:
        """The stage runs that the run cache has recorded, by file, the latest first."""
        made = dict[Path, float]()
        for path in self._runs.glob("*/*/*"):
            if path.suffix != ".tmp":  # a dvc is writing it
                with suppress(FileNotFoundError):  # a dvc has just removed it
                    made[path] = path.stat().st_mtime
        for path in sorted(made, key=lambda path: made[path], reverse=True):
            name = self._name(path)
            try:
                yield name, _checked(parsed(path.read_bytes(), name), name)
            except UserError as error:
                self._note(f"{error}; delete it")
            except OSError as error:
                self._note(f"{name}: {error.strerror}")

    def name_of(self, md5: str) -> str:
        """How a message names the file of the object cache that has this MD5."""
        return self._name(self._path(md5))

    def _name(self, path: Path) -> str:
        """A path below the project, where it is there."""
        return str(path.relative_to(self._root) if self._root in path.parents else path)

    def _path(self, md5: str) -> Path:
        return Path(self._path_of(md5))


def is_at_work(root: Path) -> bool:
    """Whether a dvc process runs a stage of the project in `root` or of one of its experiments.

    DVC notes the processes that read or write outputs in files named rwlock. Notes of killed
    processes stay there, so the processes are looked up.
    """
    temporary = root / ".dvc" / "tmp"
    for pattern in ("rwlock", "exps/rwlock", "exps/*/.dvc/tmp/rwlock", "exps/*/*/.dvc/tmp/rwlock"):
        for path in temporary.glob(pattern):
            try:
                noted = json.loads(path.read_bytes())
                entries = [*noted["write"].values(), *itertools.chain(*noted["read"].values())]
                if any(_is_alive(int(entry["pid"])) for entry in entries):
                    return True
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                continue  # just being written, or of a DVC with other notes
    return False


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # another user's


def is_of(md5: str, content: bytes | None) -> bool:
    """Whether a content has this MD5."""
    return content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == md5


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """The content of one of DVC's YAML files. Raises UserError with that name."""
    if git.has_conflict(content):
        raise UserError(f"{name}: {git.CONFLICT}")
    try:
        loader = _Loader(content)
        try:
            return _mapping(loader.get_single_data() or {}, name)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # of a date or a key, say
        raise UserError(f"{name}: damaged: not readable as YAML") from None


def _checked(entry: object, name: str) -> Entry:
    """An entry of which `outs`, `deps` and `params` can be read."""
    found = _mapping(entry, name)
    for key in ("outs", "deps"):
        listed = found.get(key) or []
        if not isinstance(listed, list):
            raise _unlike(name)
        for each in listed:
            md5 = _mapping(each, name).get("md5")
            if not isinstance(each.get("path"), str) or not (
                md5 is None or (isinstance(md5, str) and MD5.fullmatch(md5))
            ):
                raise _unlike(name)
    for section in _mapping(found.get("params") or {}, name).values():
        _mapping(section or {}, name)
    return {key: value for key, value in found.items() if value is not None}


def _mapping(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _unlike(name)
    return value


def _unlike(name: str) -> UserError:
    return UserError(f"{name}: damaged: not in the form that DVC writes")


def _sums(listed: list[dict[str, str]]) -> dict[str, str]:
    return {each["path"]: each["md5"] for each in listed if "md5" in each}
