"""A tracking server that fails, in whatever way, delays a training by seconds and costs no result.

`make soak` measures the seconds, because no other test runs beside it.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mlflow
import pytest
import torch
from servers import answers
from trainings import TRAIN, prepare, trainer_of
from workspace import Workspace

from mnist_lstm.cli import main
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.pipeline.result_files import read_rows
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.stored_runs import runs

LOST_AT_MOST = 10.0  # seconds, in train and in evaluate together
# what a failure that is met during a training means, and one that is met at its end
GOES_ON = "; the training continues, and evaluate will try again"
LATER = "; evaluate, or `mnist-lstm sync`, adds there later what is missing"


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def one_that_hangs() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def one_that_fails() -> Iterator[int]:
    """A server that answers every call with 500."""

    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


OUTAGES = (nobody, one_that_hangs, one_that_fails)


class RealServer:
    """`mlflow server`, on a store of its own, to be killed and started again."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace = workspace
        self.database = open_store(folder).uri  # made here, so that the start is quicker
        self.folder = folder
        with nobody() as port:
            self.port = port
        self.process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = self.workspace.start_warm(
            *("mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.database),
            *("--artifacts-destination", str(self.folder / "artifacts")),
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # as `make server` starts it
        )
        # its port takes connections seconds before anything answers there, and the first question
        # to its store takes seconds more: longer than a client of this project waits
        question = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        while not answers(self.uri + question):
            assert self.process.poll() is None
            time.sleep(0.05)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()

    def store(self, monkeypatch: pytest.MonkeyPatch) -> Store:
        """The server for a client that waits for answers as long as a busy machine needs."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
        return open_store(self.folder)


@pytest.fixture
def server(clone: Workspace, tmp_path: Path) -> Iterator[RealServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = RealServer(clone, folder)
    yield server
    server.kill()


@pytest.fixture
def prepared(clone: Workspace, baseline: Workspace) -> Workspace:
    shutil.copytree(baseline.folder / "data", clone.folder / "data", dirs_exist_ok=True)
    return prepare(clone)


class Watched:
    """A stage that runs; each line of its output is read with the time at which it came."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[tuple[float, str]] = []

    def until(self, word: str) -> None:
        """Read up to the first line that begins with this text; if none does, read to the end."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))
            if line.startswith(word):
                return

    def seconds_after(self, word: str) -> float:
        """Read to the end; returns the seconds since the last line with this text."""
        self.until("\n no such line")
        assert self.process.wait() == 0, self.printed
        ended = time.monotonic()
        assert self.process.stdout
        self.process.stdout.close()
        return ended - max(at for at, line in self.lines if line.startswith(word))

    @property
    def printed(self) -> str:
        return "".join(line for _, line in self.lines)


EVALUATE = (
    *("python", "src/evaluate.py", "data/raw/classes.txt", "data/sequences", "results/train"),
    *("data/published_curve.csv", "results/evaluate"),
)


def assert_whole(workspace: Workspace, whole: Workspace) -> None:
    """All results of the training are on disk, as without an outage."""
    expected, results = whole.results(), workspace.results()
    for name in ("results/train/model.safetensors", "results/train/curve.csv"):
        assert results[name] == expected[name], name
    assert workspace.json("results/train/run.json")["model_sha256"]


def said(printed: str) -> list[str]:
    return re.findall(r"(?m)^MLflow store .*", printed)


def seconds_at_the_end(
    prepared: Workspace,
    whole: Workspace,
    uri: str,
    start: "Callable[..., subprocess.Popen[str]]",
    **environment: str,
) -> float:
    """Seconds that train and evaluate take after their last results, with a store that fails.

    No result is lost, and each of the two stages reports the failure once. Train does so while it
    trains, or at its end if it is faster than MLflow's import and the answer.
    """
    shutil.rmtree(prepared.folder / ".checkpoints", ignore_errors=True)  # of the same training
    training = Watched(start(*TRAIN, MLFLOW_TRACKING_URI=uri, **environment))
    took = training.seconds_after("Iter")
    evaluation = Watched(start(*EVALUATE, MLFLOW_TRACKING_URI=uri, **environment))
    took += evaluation.seconds_after("test accuracy")
    for printed, endings in (
        (training.printed, (GOES_ON, LATER)),
        (evaluation.printed, ("and `mnist-lstm sync` adds them there later",)),
    ):
        (met,) = said(printed)
        assert met.startswith(f"MLflow store {uri}: ")
        assert met.endswith(endings)
        assert "Traceback" not in printed
    assert_whole(prepared, whole)
    assert prepared.json("results/evaluate/metrics.json")["test"]["accuracy"] > 0.5
    return took


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_a_server_that_is_away_from_the_start(
    prepared: Workspace,
    whole: Workspace,
    outage: Callable[[], contextlib.AbstractContextManager[int]],
) -> None:
    with outage() as port:
        uri = f"http://127.0.0.1:{port}"
        soon = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}  # second
        seconds_at_the_end(prepared, whole, uri, prepared.start_warm, **soon)


@pytest.mark.soak
def test_a_server_that_is_away_costs_seconds(prepared: Workspace, whole: Workspace) -> None:
    # a store whose file cannot be opened costs no time: this measures the stages' own time
    unopened = "sqlite:////dev/null/mlflow.db"
    own = seconds_at_the_end(prepared, whole, unopened, prepared.start)
    for outage in OUTAGES:
        for _ in range(3):  # other work on the machine only adds: one that it did not disturb
            with outage() as port:
                uri = f"http://127.0.0.1:{port}"
                lost = seconds_at_the_end(prepared, whole, uri, prepared.start) - own
            print(f"{outage.__name__}: {lost:.1f} s lost")
            if lost < LOST_AT_MOST:
                break
        else:
            raise AssertionError(f"{outage.__name__}: {lost:.1f} s lost")


def test_a_server_that_dies_in_mid_run_and_one_that_comes_back(
    prepared: Workspace,
    baseline: Workspace,
    tmp_path: Path,
    server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lose_and_find(prepared, server, monkeypatch, prepared.start_warm, steps=1000)
    finished = baseline.copy(tmp_path / "finished")
    assert_has_the_registry(server.store(monkeypatch), finished, monkeypatch)


@pytest.mark.soak
def test_a_server_that_dies_and_one_that_comes_back_cost_seconds(
    prepared: Workspace, server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_lost = lose_and_find(prepared, server, monkeypatch, prepared.start, steps=4000)
    for outage, lost in all_lost.items():
        print(f"{outage}: {lost:.1f} s lost")
        assert lost < LOST_AT_MOST


@contextlib.contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process for the block, so that it does not end meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lose_and_find(
    prepared: Workspace,
    server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    start: "Callable[..., subprocess.Popen[str]]",
    steps: int,
) -> dict[str, float]:
    """Seconds that a training takes after its last results, for each kind of outage.

    Its steps take long enough to find the server, and to notice that it fails.
    """
    prepared.set("train.steps", steps)
    server.start()
    training = Watched(start(*TRAIN, MLFLOW_TRACKING_URI=server.uri))
    while not runs(open_store(server.folder)):  # in its file: it need not answer us as well
        assert training.process.poll() is None
        time.sleep(0.1)
    with held(trainer_of(prepared)):
        server.kill()
    lost = {"died": training.seconds_after("Iter")}
    (line,) = said(training.printed)
    assert line.endswith((GOES_ON, LATER))  # it is noticed when rows are logged, or at the end
    model = prepared.results()["results/train/model.safetensors"]

    # the same training finds it away, and it comes back
    shutil.rmtree(prepared.folder / ".checkpoints")
    training = Watched(start(*TRAIN, MLFLOW_TRACKING_URI=server.uri))
    training.until("MLflow store ")
    with held(trainer_of(prepared)):
        server.start()
    lost["came back"] = training.seconds_after("Iter")
    assert len(said(training.printed)) == 1
    assert prepared.results()["results/train/model.safetensors"] == model
    store = server.store(monkeypatch)
    first, second = runs(store)
    assert (first.info.status, second.info.status) == ("RUNNING", "FINISHED")
    curve = read_rows(prepared.folder / "results" / "train" / "curve.csv")
    history = store.client.get_metric_history(second.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["train_loss"]) for r in curve]
    return lost


def assert_has_the_registry(
    store: Store, project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that MLFLOW_TRACKING_URI names stores a project's run, its model and the alias."""
    monkeypatch.chdir(project.folder)
    about = project.json("results/train/run.json")
    assert main(["promote", about["name"]]) == 0
    assert main(["promote", about["name"]]) == 0  # it is the champion already
    champion = registry.champion(store)
    assert champion
    assert (champion.number, champion.model_sha256) == ("1", about["model_sha256"])
    assert main(["promote", "--rollback"]) == 1  # there was none before
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loaded = mlflow.pyfunc.load_model(f"models:/{registry.MODEL}@{registry.ALIAS}")
    pixels = Sequences.load(project.folder / "data" / "sequences" / "test.safetensors").pixels[:5]
    ours = Classifier(RowLSTM.load(project.folder / "results" / "train" / "model.safetensors"))
    answer = torch.from_numpy(loaded.predict(pixels.numpy()))
    torch.testing.assert_close(answer, ours.eval()(pixels), rtol=0, atol=1e-6)
