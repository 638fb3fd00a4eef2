"""The one wrapper around git: it runs plumbing commands, returns bytes, and reports failures.

The output does not depend on the user's settings. Variables that lead git to another repository or
change its output are removed, hooks and the file system monitor are off, and every option of a diff
is given.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from mnist_lstm import UserError

# GIT_CONFIG_* is kept: it may hold the safe.directory without which git refuses the repository
REMOVED = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"),
    *("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_TRACE", "GIT_TRACE_SETUP"),
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS"),
    "GIT_ICASE_PATHSPECS",
)
SETTINGS = (
    *("-c", "core.quotePath=true", "-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
)
DIFF = (
    *("--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"),
    *("--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3"),
    *("--inter-hunk-context=0", "--diff-algorithm=myers", "--submodule=short"),
    f"-O{os.devnull}",
)


MARKS = re.compile(rb"^(<{7} |={7}\r?$|>{7} )", re.MULTILINE)
CONFLICT = "has the marks of an unresolved merge"


class GitError(UserError):
    """git failed. The message is the command and git's own reason."""


def git(
    folder: Path, *arguments: str, input: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes:
    """Run git in a folder and return what it prints. Raises GitError if git fails."""
    done = _run(folder, *arguments, input=input, environment=environment)
    if done.returncode:
        raise _error(arguments[0], done)
    return done.stdout


def is_repository(folder: Path) -> bool:
    """Whether a folder is inside a git repository; False if git is not installed.

    Raises GitError if git refuses to read the repository, because of its owner for example.
    """
    if shutil.which("git") is None:
        return False
    done = _run(folder, "rev-parse", "--git-dir")
    if done.returncode and b"not a git repository" not in done.stderr:
        raise _error("rev-parse", done)
    return not done.returncode


def head(folder: Path) -> str | None:
    """The present commit; None before the first one. Raises GitError."""
    done = _run(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if done.returncode and done.stderr:
        raise _error("rev-parse", done)
    return done.stdout.decode().strip() or None


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository has a commit of this hash."""
    return not _run(folder, "cat-file", "-e", f"{commit}^{{commit}}").returncode


def on_a_branch(folder: Path, commit: str) -> bool:
    """Whether HEAD or a branch of the repository has this commit. Raises GitError if it is gone."""
    if git(folder, "for-each-ref", "--count=1", "--contains", commit, "refs/heads"):
        return True
    return not _run(folder, "merge-base", "--is-ancestor", commit, "HEAD").returncode


def file_names(folder: Path, *options: str, paths: Sequence[str]) -> list[str]:
    """The names, relative to the folder, that `git ls-files` lists with these options, each once.

    During a merge it lists a file several times; its own option against that came with git 2.31.
    """
    listed = git(folder, "ls-files", "-z", *options, "--", *paths)
    return [os.fsdecode(name) for name in dict.fromkeys(listed.split(b"\0")) if name]


def blobs(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    """The content of each `<commit>:<path>`; None if the repository does not have it."""
    request = "\n".join(names).encode(errors="surrogateescape")
    printed = BytesIO(git(folder, "cat-file", "--batch", input=request))
    contents: list[bytes | None] = []
    for _ in names:
        header = printed.readline().split()
        if header[-1] == b"missing":
            contents.append(None)
            continue
        content = printed.read(int(header[-1]))
        contents.append(content if header[-2] == b"blob" else None)
        printed.read(1)  # a newline follows each content
    return contents


def have_files(folder: Path, names: Sequence[str]) -> list[bool]:
    """Whether the repository has a file at each `<commit>:<path>`."""
    request = "\n".join(names).encode(errors="surrogateescape")
    printed = git(folder, "cat-file", "--batch-check", input=request).splitlines()
    return [line.split()[-2] == b"blob" for line in printed]


def has_conflict(content: bytes) -> bool:
    """Whether git left the marks of a conflict in a file: all three kinds of them."""
    return len({mark.rstrip() for mark in MARKS.findall(content)}) == 3


def patch(folder: Path, paths: Sequence[str]) -> bytes:
    """The difference between HEAD and the files below `paths`, for `git apply` in the top folder.

    It includes files that git does not track, but not ignored files. The repository's own index and
    objects stay as they are. Raises GitError.
    """
    empty_tree = git(folder, "hash-object", "-t", "tree", "--stdin").decode().strip()
    base = head(folder) or empty_tree
    objects = git(folder, "rev-parse", "--git-path", "objects").decode().rstrip("\n")
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(str((folder / objects).resolve())),
        }
        (Path(scratch) / "objects").mkdir()
        options = ("--cached", "--others", "--exclude-standard")
        names = set(file_names(folder, *options, paths=paths))
        git(folder, "read-tree", base, environment=environment)
        in_base = git(folder, "ls-files", "-z", "--", *paths, environment=environment)
        names |= {os.fsdecode(name) for name in in_base.split(b"\0") if name}
        git(
            folder,
            *("update-index", "--add", "--remove", "--replace", "-z", "--stdin"),
            input=b"".join(os.fsencode(name) + b"\0" for name in sorted(names)),
            environment=environment,
        )
        return git(
            folder, "diff-index", "--cached", *DIFF, base, "--", *paths, environment=environment
        )


def _quoted(path: str) -> str:
    """A path in C quotes, for a list in which a colon ends an entry."""
    return '"' + path.replace("\\", r"\\").replace('"', r"\"") + '"'


def _run(
    folder: Path,
    *arguments: str,
    input: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    kept = {key: value for key, value in os.environ.items() if key not in REMOVED}
    try:
        return subprocess.run(
            ["git", *SETTINGS, *arguments],
            cwd=folder,
            env=kept | {"LC_ALL": "C"} | dict(environment or {}),
            input=input,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed, or not on the PATH; install it") from None


def _error(command: str, done: "subprocess.CompletedProcess[bytes]") -> GitError:
    reason = " ".join(done.stderr.decode(errors="replace").split())
    return GitError(f"git {command}: {reason or f'exit code {done.returncode}'}")
