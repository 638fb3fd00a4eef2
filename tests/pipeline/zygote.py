"""Start processes at once: fork the zygote, a process that has imported torch, MLflow and DVC.

`start` makes a folder with the programs `python`, `dvc`, `mlflow` and `mnist-lstm`. A program there
sends its arguments, environment, folder and open files to the zygote. A fork of the zygote then
does the program's work, and the program ends with the fork's exit code. The zygote has imported
installed packages only; the fork imports the project's code from its own workspace.

A fork of `evaluate` does not render its pictures, which takes half of its time: `Blank` says what
is in their files instead. With DRAWN in its environment it renders them, as the installed programs
do. All forks together export each architecture once: see exports.py.

The program passes on SIGINT, SIGTERM and SIGHUP to the process group of the fork. When the program
is killed, that group is killed. But a fork is not a child of the program that requested it, and it
has imported everything: what a stage does when its dvc is gone, or while it imports, is tested with
the installed programs.

When the last test process has ended or was killed, the zygote ends all processes that the tests
left behind, and then itself.
"""

import atexit
import contextlib
import functools
import gc
import hashlib
import importlib
import io
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import exports
import psutil

MARK = "MNIST_LSTM_TESTS"  # in the environment of all processes that tests start
DRAWN = "MNIST_LSTM_TESTS_DRAWN"  # in the environment of an `evaluate` that renders its pictures
IMPORTED = """
alembic.command alembic.config celery.app.amqp celery.concurrency.thread celery.worker.worker
dulwich.porcelain dulwich.worktree dvc._debug dvc.api dvc.cachemgr dvc.cli.parser dvc.data_cloud
dvc.repo.artifacts dvc.repo.datasets dvc.repo.experiments.executor.local
dvc.repo.experiments.queue.celery dvc.repo.experiments.run dvc.repo.graph dvc.repo.index
dvc.repo.open_repo dvc.repo.plots dvc.repo.reproduce dvc.repo.stage dvc.repo.trie dvc.stage.run
dvc.utils.hydra dvc.utils.plots dvc.utils.strictyaml dvc_data.hashfile.db.local
dvc_data.hashfile.status dvc_data.index.checkout dvc_task.app dvc_task.proc.process flask flask_cors
fsspec.implementations.memory graphene hydra matplotlib.backends.backend_agg matplotlib.figure
matplotlib.style mlflow.pyfunc mlflow.pytorch mlflow.store.tracking.sqlalchemy_store
mlflow.store.tracking.sqlalchemy_workspace_store mlflow.utils.search_logged_model_utils
mpl_toolkits.mplot3d networkx optuna optuna.visualization.matplotlib pandas platformdirs.unix
prometheus_client pygit2 ruamel.yaml safetensors.torch scipy scmrepo.git
scmrepo.git.backend.pygit2.filter sklearn.datasets sklearn.datasets.data sklearn.datasets.descr
sklearn.metrics sqlalchemy.dialects.sqlite starlette.middleware.wsgi sympy.tensor.tensor tabulate
torch._dynamo torch._export.non_strict_utils torch._export.serde.serialize
torch._functorch.aot_autograd torch._inductor.ir torch._inductor.output_code
torch.distributed.launcher.api torch.export torch.export._trace torch.export._unlift
torch.export.pt2_archive._package torch.fx._graph_pickler torch.utils.flop_counter tqdm
uvicorn.lifespan.on uvicorn.main uvicorn.protocols.http.auto
"""  # by the programs and the stages, where they import it
OPTIONAL = ("aiobotocore.session", "boto3", "dvc_s3", "psycopg", "s3fs")  # the extra `team`
READ_AT_START = ("PYTHONPATH", "PYTHONSAFEPATH")  # by Python, and by no fork
# each fork copies the zygote's page table, which is smaller if pages are huge: 6 ms instead of 20
HUGE_PAGES = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PROGRAM = """\
#!{python} -IS
import contextlib, json, os, signal, socket, sys

arguments = [*{before}, *sys.argv[1:]]
is_script = arguments and not arguments[0].startswith("-")
if not (is_script or arguments[:1] == ["-m"]) or any(name in os.environ for name in {at_start}):
    os.execv({python!r}, [{python!r}, *arguments])
with socket.socket(socket.AF_UNIX) as zygote:
    zygote.connect({address!r})
    socket.send_fds(zygote, [b"."], [0, 1, 2])
    request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    zygote.sendall(len(request).to_bytes(4, "big") + request)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # a shell makes what it runs in the background ignore SIGINT; the project's programs do not
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: zygote.send(bytes([number])))
    code = int(zygote.recv(100) or 1)
if code < 0:
    with contextlib.suppress(OSError):  # SIGKILL has no other
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""

_held: dict[Path, int] = {}  # by this process, of each folder's zygote: who holds it, needs it


def folder_of_programs() -> Path:
    """The folder of the programs; without a zygote, that of the installed programs."""
    installed = Path(sys.executable).parent
    return Path(os.environ[MARK]) / "bin" if MARK in os.environ else installed


def start(folder: Path, modules: str = IMPORTED) -> None:
    """Make the programs and start their zygote, unless another process has done so.

    Only one process at a time may call it. It does nothing on systems where forks are unreliable,
    such as macOS.
    """
    if sys.platform != "linux" or folder in _held:
        return
    installed = Path(sys.executable).parent
    holders, address = folder / "holders", folder / "socket"
    if not holders.exists():
        (folder / "bin").mkdir(parents=True)
        os.mkfifo(holders)
        for name in ("python", "dvc", "mlflow", "mnist-lstm"):
            program = folder / "bin" / name
            before = [] if name == "python" else [str(installed / name)]
            text = PROGRAM.format(
                python=sys.executable, before=before, at_start=READ_AT_START, address=str(address)
            )
            program.write_text(text)
            program.chmod(0o755)
    _held[folder] = os.open(holders, os.O_RDWR)  # for both, so as not to wait for the other side
    if not _listens(address):
        address.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if name not in READ_AT_START}
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, folder, modules],
                env=kept
                | HUGE_PAGES
                | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", MARK: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not _listens(address):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        process.returncode = 0  # it is to outlive us: no warning
    os.environ[MARK] = str(folder)


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(address)) == 0


def main(folder: Path, modules: str) -> None:
    """Run the zygote; in each fork, run the requested program."""
    holders = os.open(folder / "holders", os.O_RDONLY | os.O_NONBLOCK)
    gc.disable()  # it would take seconds of the imports
    importlib.import_module("mnist_lstm.tracking")  # what it tells MLflow, it tells before that
    for name in modules.split():
        importlib.import_module(name)
    if modules:
        for name in OPTIONAL:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        _warm_up()
    for name in [name for name in sys.modules if name.split(".")[0] == "mnist_lstm"]:
        del sys.modules[name]
    logging.root.handlers.clear()  # which PyTorch's or MLflow's import leaves
    for each in weakref.finalize._registry:  # type: ignore[attr-defined]
        each.atexit = False  # else every fork would take torch's 206 libraries apart: 30 ms
    gc.collect()
    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen(100)
        _serve(server, holders)
    _end_all(folder)


def _warm_up() -> None:
    """Do what costs a process seconds the first time: find MLflow's schema, export a model, draw.

    No kernel of torch may run here: when the first one does, ATEN_CPU_CAPABILITY chooses kernels.
    """
    import numpy as np
    import sqlalchemy.orm
    import torch
    from matplotlib.figure import Figure
    from mlflow.store.db import utils

    sqlalchemy.orm.configure_mappers()
    utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()
    model, images = torch.nn.LSTM(8, 8, device="meta").eval(), torch.empty(2, 8, 8, device="meta")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights")
        torch.export.export(model, (images,), dynamic_shapes=({1: torch.export.Dim("batch")},))
    figure = Figure()
    figure.add_subplot().imshow(np.zeros((8, 8)), cmap="Blues")
    figure.suptitle("a title")
    figure.savefig(io.BytesIO())


class Blank:
    """What `evaluate` uses in a fork to write a figure: a PNG of one pixel, with a digest of texts.

    So two figures that say something else have other bytes, and the same figures have the same.
    """

    @staticmethod
    def savefig(figure: Any, file: Any, **_: object) -> None:
        from matplotlib.text import Text
        from PIL import Image, PngImagePlugin

        texts = "\n".join(text.get_text() for text in figure.findobj(Text))
        about = PngImagePlugin.PngInfo()
        about.add_text("Texts", hashlib.sha256(texts.encode()).hexdigest())
        Image.new("L", (1, 1)).save(file, "png", pnginfo=about)


class Program(NamedTuple):
    """A program that waits for its fork to end. Then `ended` can be read from."""

    connection: socket.socket
    fork: int  # process ID
    ended: int  # file descriptor
    arguments: list[str]


def _serve(server: socket.socket, holders: int) -> None:
    """Fork for each program, pass on its signals and send its exit code, until nobody holds us."""
    watched: dict[socket.socket | int, Program] = {}
    while holders not in (ready := select.select([server, holders, *watched], [], [])[0]):
        for each in ready:
            if each is server:
                connection, _ = server.accept()
                if program := _start(connection, [server, holders, *watched]):
                    watched |= {program.ended: program, connection: program}
            elif not (program := watched.get(each)):
                pass  # it has ended
            elif each == program.ended:
                _report(program)
                del watched[program.ended]
                watched.pop(program.connection, None)
                program.connection.close()
                os.close(program.ended)
            else:
                numbers = program.connection.recv(100)
                for number in numbers or [signal.SIGKILL]:  # nothing: the program was killed
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(program.fork, number)
                if not numbers:
                    del watched[each]


def _start(connection: socket.socket, ours: Iterable[socket.socket | int]) -> Program | None:
    """Fork, and run in the fork what the connection asks for. `ours` are closed there.

    Returns None if nobody waits for it: the program was killed, or only asked whether we listen.
    """
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
    request = connection.recv(length, socket.MSG_WAITALL)
    program = None
    if not request or len(request) < length:
        connection.close()
    else:
        arguments, folder, environment = json.loads(request)
        if (fork := os.fork()) == 0:
            for each in (connection, *ours):
                os.close(each if isinstance(each, int) else each.detach())
            with contextlib.suppress(PermissionError):
                os.setpgid(0, 0)
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            _run(arguments, folder, environment)
        with contextlib.suppress(PermissionError):
            os.setpgid(fork, fork)  # here too: whichever of the two comes first
        program = Program(connection, fork, os.pidfd_open(fork), arguments)
    for file in files:
        os.close(file)
    return program


def _report(program: Program) -> None:
    """Write to the log what the ended fork cost, and send its exit code."""
    _, status, used = os.wait4(program.fork, 0)
    seconds = used.ru_utime + used.ru_stime
    print(f"{seconds:.2f} s of the processor: {program.arguments}", flush=True)
    with contextlib.suppress(OSError):
        program.connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Do a program's work in this fork, and exit as the program would."""
    code = 1
    try:
        _become(arguments, folder, environment)
        code = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = end.code or 0
        else:
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    # Python's own shutdown would take seconds, because so much was imported
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # that of this environment
    # the zygote ignores it if the tests were started in the background; who must ignore it, does so
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.executable = str(Path(sys.argv[1]) / "bin" / "python")  # what it starts starts at once too
    if torch_export := sys.modules.get("torch.export"):
        folder_of_exports = Path(sys.argv[1]).with_name(exports.FOLDER)
        torch_export.export = exports.exporting_once(torch_export.export, folder_of_exports)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], folder
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        script = Path(arguments[0])
        if script.name == "evaluate.py" and DRAWN not in os.environ:
            from matplotlib.figure import Figure

            Figure.savefig = Blank.savefig
        sys.argv, sys.path[0] = arguments, str(script.resolve().parent)
        # not runpy.run_path: it uses sys.argv[0] as __file__, but Python's __file__ is absolute
        main = types.ModuleType("__main__")
        main.__file__ = str(script.absolute())
        sys.modules["__main__"] = main
        exec(compile(script.read_bytes(), main.__file__, "exec"), main.__dict__)


def _end_all(folder: Path) -> None:
    """End the processes that have our mark, and the processes that they start meanwhile."""
    while left := [process for process in psutil.process_iter() if _is_marked(process, folder)]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.1)


def _is_marked(process: psutil.Process, folder: Path) -> bool:
    try:
        marked = process.pid != os.getpid() and process.environ().get(MARK) == str(folder)
        return marked and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
