"""The files of trainings and evaluations, wherever they are: by MD5, as dvc.lock names them.

They are in DVC's cache, in the workspace, and in git, which has the small tables.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from mnist_lstm import UserError, dvc_cache, git
from mnist_lstm.dvc_cache import DvcCache, Files
from mnist_lstm.pipeline.result_files import TABLES, Row, parse_metrics, parse_rows

TRAIN, EVALUATE = "results/train", "results/evaluate"
IN_COMMIT = re.compile(r"[0-9a-f]{7}:")  # how a message names a file of a commit

Content = TypeVar("Content")


class RecordedFiles:
    """The files of the project in `root` that are recorded, and are here.

    `unreadable` has a line for each file that is damaged or of another version, and left out.
    """

    def __init__(self, root: Path, note: Callable[[str], object]) -> None:
        """`note` is called with each line of `unreadable`. Raises UserError as DvcCache does."""
        self.root = root
        self.unreadable: list[str] = []
        self._note = note
        self._cache = DvcCache(root, self.leave_out)
        self._is_in_git = git.is_repository(root)
        self._in_git: dict[str, str] = {}  # <commit>:<path> by MD5
        self._here = dict(self._workspace())  # MD5 sums by path
        self._path_of = {md5: path for path, md5 in self._here.items()}

    @property
    def damaged(self) -> list[str]:
        """The lines of `unreadable` about files that can be mended: those not in a commit."""
        return [line for line in self.unreadable if not IN_COMMIT.match(line)]

    @contextmanager
    def laid_out(self, *every: Files) -> Iterator[list[Path]]:
        """Temporary folders with files in them, under their names, for the time of the block.

        Raises UserError where a file is not here. A UserError that is raised in the block names the
        files as the project has them.
        """
        with TemporaryDirectory() as scratch:
            folders = [Path(scratch) / str(number) for number in range(len(every))]
            names: dict[str, str] = {}
            for folder, files in zip(folders, every, strict=True):
                folder.mkdir()
                for path, md5 in files.items():
                    laid_out = folder / Path(path).name
                    names[str(laid_out)] = self._location(md5, path)
                    content = self._content(md5)
                    if content is None:
                        raise UserError(f"{names[str(laid_out)]}: damaged, or no longer here")
                    laid_out.write_bytes(content)
            try:
                yield folders
            except UserError as error:
                text = str(error)
                for temporary, name in names.items():
                    text = text.replace(temporary, name)
                raise UserError(text) from None

    def has(self, files: Files, path: str) -> bool:
        """Whether a file of a training or an evaluation is here, by its path; it may be damaged."""
        return path in files and self._has(files[path])

    def content(self, files: Files, name: str) -> bytes | None:
        """A file of a training or an evaluation, by its name; None where it is not here."""
        path = _path(files, name)
        return self._content(files[path]) if path else None

    def rows(self, files: Files, name: str) -> list[Row]:
        """A table of a training or an evaluation, by its name; no rows where it is not here."""
        return self._parsed(files, name, partial(parse_rows, columns=TABLES[name])) or []

    def metrics_of(self, evaluation: Files) -> dict[str, Any]:
        """metrics.json of an evaluation; empty where it is not here."""
        return self._parsed(evaluation, "metrics.json", parse_metrics) or {}

    def committed(self, path: str) -> bytes:
        """What HEAD has at a path of the project; nothing where it has none."""
        (content,) = self._blobs([f"HEAD:./{path}"])
        return content or b""

    def leave_out(self, line: str) -> None:
        """Note a file that is damaged, once."""
        if line not in self.unreadable:
            self.unreadable.append(line)
            self._note(f"left out: {line}")

    def _location(self, md5: str, path: str) -> str:
        """How a message names a file: by where it is."""
        if md5 in self._path_of:
            return self._path_of[md5]
        if self._cache.has(md5):
            return f"{self._cache.name_of(md5)} ({path})"
        commit, _, below = self._in_git.get(md5, path).partition(":./")
        return f"{commit[:7]}:{below}" if below else path

    def _parsed(
        self, files: Files, name: str, parse: Callable[[bytes, str], Content]
    ) -> Content | None:
        """The content of a file as `parse` reads it; None where it is not here, or damaged."""
        path = _path(files, name)
        content = self._content(files[path]) if path else None
        if not path or content is None:
            return None
        try:
            return parse(content, self._location(files[path], path))
        except UserError as error:
            self.leave_out(str(error))
            return None

    def _workspace(self) -> Iterator[tuple[str, str]]:
        """The files of results/ in the workspace, and their MD5 sums."""
        for folder in (TRAIN, EVALUATE):
            for path in sorted((self.root / folder).glob("*.*")):
                name = str(path.relative_to(self.root))
                if path.name == ".gitignore" or not path.is_file():
                    continue
                try:
                    with path.open("rb") as file:
                        yield name, hashlib.file_digest(file, "md5").hexdigest()
                except OSError as error:
                    self.leave_out(f"{name}: {error.strerror}")

    def _has(self, md5: str) -> bool:
        return self._cache.has(md5) or md5 in self._path_of or md5 in self._in_git

    def _content(self, md5: str) -> bytes | None:
        """The file of this MD5 from DVC's cache, from the workspace or from a commit."""
        content = self._cache.content(md5)
        if content is None and (path := self._path_of.get(md5)):
            with suppress(OSError):  # it may be gone by now, or another
                content = (self.root / path).read_bytes()
        return content if dvc_cache.is_of(md5, content) else self._in_commit(md5)

    def _in_commit(self, md5: str) -> bytes | None:
        """A file that a commit with that sum in its dvc.lock has; None where it has another."""
        (content,) = self._blobs([self._in_git[md5]]) if md5 in self._in_git else [None]
        return content if dvc_cache.is_of(md5, content) else None

    def _blobs(self, names: Sequence[str]) -> list[bytes | None]:
        """The content of each `<commit>:<path>`; None for one that is not there."""
        return git.blobs(self.root, names) if self._is_in_git else [None] * len(names)


def _path(files: Files, name: str) -> str | None:
    return next((path for path in files if Path(path).name == name), None)
