"""What every stage does before and after its work: check code and inputs, report errors.

A stage is a file in src/ with a function of the same name. The function takes the parameters and
the paths from the command in dvc.yaml. The file calls `begin` before its slow imports, and ends
with `run(that_function)`.
"""

import argparse
import ast
import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mnist_lstm
from mnist_lstm import UserError, dvc_cache, git
from mnist_lstm.dvc_cache import DvcCache
from mnist_lstm.files import sha256, write_atomically
from mnist_lstm.pipeline import company, launch, process, signals
from mnist_lstm.pipeline.launch import Ended
from mnist_lstm.pipeline.params import load, values_of
from mnist_lstm.pipeline.signals import Interrupted

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of flock, on some disks in a network
OF_THE_DISK = (*DISK_FULL, *READ_ONLY, *NO_LOCKS, errno.ENAMETOOLONG)  # no faults of the code


def root() -> Path:
    """The project's folder. For an experiment in a temporary copy, it is the main repository's.

    Raises UserError if neither this folder nor one above it has a dvc.yaml, or if this folder was
    deleted.
    """
    if given := os.environ.get("DVC_ROOT"):
        return Path(given)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder was deleted; change into the project's") from None
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; run this inside the project")


_at_start: dict[str, object] | None = None  # the stage's inputs, as `begin` found them


def begin() -> None:
    """Answer --help, refuse wrong arguments and a wrong params.yaml, and note the inputs' state.

    A stage's script calls this before it imports torch. The import takes seconds. A file that is
    edited in these seconds is not the file that runs. `run` checks everything again.
    """
    global _at_start
    process.prepare()
    script = Path(sys.argv[0])
    _paths(script, script.stem)
    with _errors_in_one_line(script.stem):
        _refuse_foreign_code(script.parent)
        _section(script.stem)
        load(Path("params.yaml"))
        _at_start = inputs(script.stem)
        company.choose_wait_policy(expects_company=_is_temporary_copy())


def _is_temporary_copy() -> bool:
    """Whether DVC runs us in a temporary copy of the workspace, as its queue does several times.

    The first one cannot see the others yet. Our own commands run one after another.
    """
    return root().resolve() != Path.cwd() and signals.COMMAND not in os.environ


def run(work: Callable[..., None]) -> None:
    """Run a stage from the command line, and exit.

    The exit code is 0 after success, 1 after a user's mistake, which is reported in one line, and
    128 plus the signal's number after a signal: 130 for Ctrl-C, 143 for SIGTERM.

    The stage is refused if the package comes from another workspace. Its results are refused if
    the inputs that dvc.yaml lists changed while it ran: DVC would record the results as made from
    the new inputs.
    """
    name, script = work.__name__, Path(inspect.getfile(work))
    paths = _paths(script, name)
    process.prepare()
    with _errors_in_one_line(name), signals.immediate():
        _refuse_foreign_code(script.parent)
        before = _at_start or inputs(name)
        _refuse_changed_inputs(name, before)  # before work of hours
        work(load(Path("params.yaml")), *paths)
        _refuse_changed_inputs(name, before)


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """If the block fails, restore the stage's earlier results and exit with a one-line message."""
    try:
        yield
    except BaseException as raised:
        error = _too_little_memory(raised) or raised
        if launch.is_one_of_several():  # the launcher restores and prints
            if isinstance(error, Interrupted):
                launch.report(str(error), error.exit_code)
            if isinstance(error, UserError | OSError):
                launch.report(in_one_line(error), 1)
            raise
        lost = _restored(name) if "DVC_STAGE" in os.environ else ""
        if isinstance(error, Interrupted | Ended):
            print(f"{name}: {error}{lost}", file=sys.stderr)
            sys.exit(error.exit_code)
        if not isinstance(error, UserError | OSError):
            raise
        if isinstance(error, OSError) and error.filename == process.OUTPUT:
            process.discard_output()
        sys.exit(f"{name}: {in_one_line(error)}{lost}")


def _too_little_memory(error: BaseException) -> UserError | None:
    """What to do, if an error says that the memory is full; None for any other error."""
    # torch raises RuntimeErrors: "can't allocate memory" on the CPU, "out of memory" on a GPU
    is_full = re.search("(allocate|out of) memory", str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_full):
        return UserError(
            "there is too little memory; lower model.hidden_size or a batch size: "
            "train.batch_size, train.eval_batch_size, evaluate.batch_size"
        )
    return None


def inputs(name: str) -> dict[str, object]:
    """The inputs of a stage in dvc.yaml: digests of its deps, values of its params."""
    stage = _section(name)
    found: dict[str, object] = {dep: _digest(Path(dep)) for dep in stage["deps"]}
    values = values_of(Path("params.yaml"), stage["params"])
    return found | {f"params.yaml: {key}": value for key, value in values.items()}


def code(name: str) -> list[Path]:
    """The Python files among the deps of a stage in dvc.yaml."""
    return [Path(dep) for dep in _section(name)["deps"] if dep.endswith(".py")]


def restore_outputs(name: str) -> None:
    """Restore the outputs that dvc.lock records for a stage, from DVC's cache or from git.

    DVC deletes a stage's outputs before it starts the command. Without this function, the user
    would lose the earlier results whenever a stage refuses to run. An output that neither the cache
    nor git has is not restored.
    """
    recorded = dvc_cache.outs(dvc_cache.workspace_stages(Path()).get(name, {}))
    if not recorded:
        return
    cache, in_git = DvcCache(Path()), git.is_repository(Path())
    for path, md5 in recorded.items():
        content = cache.content(md5)
        if content is None and in_git:
            (content,) = git.blobs(Path(), [f"HEAD:./{path}"])
        if content is not None and dvc_cache.is_of(md5, content):
            write_atomically(Path(path), content)


def check_recorded(name: str) -> bool:
    """Whether dvc.lock has recorded the outputs of an earlier stage that are here.

    Raises UserError where it has recorded others: `git checkout` brings back the tables alone, and
    leaves the model of another training beside. Returns False where no dvc runs the stage, since
    dvc.lock does not know of a training that was started without DVC.
    """
    if "DVC_STAGE" not in os.environ:
        return False
    recorded = dvc_cache.outs(dvc_cache.workspace_stages(Path()).get(name, {}))
    for path, md5 in recorded.items():
        if Path(path).is_file() and not dvc_cache.is_of(md5, Path(path).read_bytes()):
            raise UserError(
                f"{path}: not what dvc.lock has of the stage {name}, so it may be of another run; "
                "`dvc repro` without --single-item puts it right"
            )
    return bool(recorded)


def _digest(path: Path) -> object:
    """The digest of a file, or the digests of all files in a folder."""
    if path.is_dir():
        return {str(file): sha256(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return sha256(path) if path.is_file() else "no such file"


def _restored(name: str) -> str:
    """Restore the earlier results. Returns a hint for the user if that was not possible."""
    if signals.orphaned() and dvc_cache.is_at_work(Path()):  # another one may write the outputs
        return " (`dvc checkout` and `git checkout results` restore earlier results)"
    try:
        restore_outputs(name)
    except (OSError, UserError) as error:
        return (
            f" (earlier results are in DVC's cache, but could not be restored: {error}; "
            "`dvc checkout` restores them)"
        )
    return ""


def _section(name: str) -> dict[str, list[str]]:
    try:
        content = Path("dvc.yaml").read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{Path.cwd()}: no dvc.yaml here; run this in the project's folder"
        ) from None
    section: dict[str, list[str]] = dvc_cache.parsed(content, "dvc.yaml")["stages"][name]
    return section


def _paths(script: Path, name: str) -> list[Path]:
    """The paths on the command line, one for each path that the stage's function takes."""
    module = ast.parse(script.read_bytes())
    functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))
    work = next(node for node in functions if node.name == name)
    parser = argparse.ArgumentParser(
        description=ast.get_docstring(module),
        epilog=ast.get_docstring(work),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, *names = (argument.arg for argument in work.args.args)
    for name in names:
        parser.add_argument(name, type=Path, help="the path in the stage's command in dvc.yaml")
    arguments = parser.parse_args()
    return [getattr(arguments, name) for name in names]


def _refuse_foreign_code(source: Path) -> None:
    package = Path(mnist_lstm.__file__).resolve()
    if not package.is_relative_to(source.resolve()):
        raise UserError(
            f"the package mnist_lstm comes from {package.parent}, not from {source.resolve()}: "
            "another project's code would run; run `python src/…`, without PYTHONSAFEPATH"
        )


def _refuse_changed_inputs(name: str, before: dict[str, object]) -> None:
    after = inputs(name)
    changed = [
        f"{key} ({before.get(key)} before, {after.get(key)} now)"
        if key.startswith("params.yaml")
        else key
        for key in before | after
        if before.get(key) != after.get(key)
    ]
    if changed:
        raise UserError(
            f"changed while the stage ran: {', '.join(changed)}; the results are not kept, because "
            "DVC would record them as made from the new state; run again, or undo the change first"
        )


def in_one_line(error: Exception) -> str:
    """What is wrong and what to do, of a UserError or an OSError."""
    if not (isinstance(error, OSError) and error.strerror):
        return " ".join(str(error).split())
    # a failed write names no file; the files that a stage writes are all in the project's folder
    where = Path(error.filename or Path.cwd())
    if error.filename == process.OUTPUT:
        return f"{where}: {error.strerror}; run again with another"
    if error.errno in DISK_FULL:
        return f"{where}: {error.strerror}; free some space there and run again"
    if error.errno in READ_ONLY:
        # a file that does not exist should have been created: name the folder that refused it
        while not os.access(where, os.F_OK) and where != where.parent:
            where = where.parent
        return f"{where}: {error.strerror}; `ls -ld {where}` shows who owns it"
    if error.errno in NO_LOCKS:
        return f"{where}: {error.strerror}: its disk has no locks; move the project to a local disk"
    if error.errno == errno.ENAMETOOLONG:
        return f"{where}: {error.strerror}; use a shorter one"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{where}: no such file; `dvc repro` makes it"
    return f"{where}: {error.strerror}"
