"""Start processes at once: fork the zygote, a process that has imported torch, MLflow and DVC.

`start` makes a folder with the programs `python`, `dvc`, `mlflow` and `mnist-lstm`. A program there
sends its arguments, environment, folder and open files to the zygote. A fork of the zygote then
does the program's work, and the program ends with the fork's exit code. The zygote has imported
installed packages only; the fork imports the project's code from its own workspace.

A fork of `evaluate` does not render its pictures, which takes half of its time: `Blank` says what
is in their files instead. With DRAWN in its environment it renders them, as the installed programs
do.

The program passes on SIGINT, SIGTERM and SIGHUP to the process group of the fork. When the program
is killed, that group is killed. But a fork is not a child of the program that requested it, and it
has imported everything: what a stage does when its dvc is gone, or while it imports, is tested with
the installed programs.

When the last test process has ended or was killed, the zygote ends all processes that the tests
left behind, and then itself.
"""

import atexit
import contextlib
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
from pathlib import Path
from typing import Any, NoReturn

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
    zygote.sendall(b"%d\\n%b" % (len(request), request))
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
                env=kept | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", MARK: str(folder)},
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
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that serve a program
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen(100)
        while True:
            ready, _, _ = select.select([server, holders], [], [])
            if holders in ready:
                break  # the last holder is gone
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                os.close(holders)
                _serve(client)
            client.close()
    _end_all(folder)


def _warm_up() -> None:
    """Do what costs a process seconds the first time: export a model, draw.

    No kernel of torch may run here: when the first one does, ATEN_CPU_CAPABILITY chooses kernels.
    """
    import numpy as np
    import sqlalchemy.orm
    import torch
    from matplotlib.figure import Figure

    sqlalchemy.orm.configure_mappers()
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


def _serve(client: socket.socket) -> NoReturn:
    """Fork again, wait for the new process and send its exit code; in it, run the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    if len(files) < 3:  # somebody asked whether we listen
        os._exit(0)
    with client.makefile("rb", buffering=0) as request:
        length = int(request.readline())
        text = b""
        while len(text) < length:
            part = request.read(length - len(text))
            if not part:
                os._exit(1)  # the program was killed
            text += part
    if child := os.fork():
        os.setpgid(child, child)  # here too: whichever of the two comes first
        for file in files:
            os.close(file)
        _pass_on_signals(client, child)
        _, status, used = os.wait4(child, 0)
        seconds = used.ru_utime + used.ru_stime
        print(f"{seconds:.2f} s of the processor: {json.loads(text)[0]}", flush=True)  # in the log
        with contextlib.suppress(OSError):
            client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    client.close()
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    code = 1
    try:
        _become(*json.loads(text))
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


def _pass_on_signals(program: socket.socket, child: int) -> None:
    """Until the child ends, send its group the signals of its program; SIGKILL, if that is gone."""
    ended = os.pidfd_open(child)
    while ended not in select.select([program, ended], [], [])[0]:
        for number in program.recv(100) or [signal.SIGKILL]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, number)
        if number == signal.SIGKILL:
            return


def _become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # that of this environment
    sys.executable = str(Path(sys.argv[1]) / "bin" / "python")  # what it starts starts at once too
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
