"""Cause each message in docs/errors.md, and compare.

tests/pipeline/test_refusals.py causes DVC's own messages, and tests/pipeline/test_kills.py those
about stopping and continuing.
"""

import errno
import fcntl
import hashlib
import http.server
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial, wraps
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zygote
from dvc.repo import Repo
from matplotlib.figure import Figure
from PIL import Image
from samples import (
    FINISHED,
    PROJECT,
    catalogue,
    drawn,
    is_the_line,
    record_of_seed,
    small_model,
    write_lock,
)
from test_idx import MALFORMED
from test_picture_file import claim
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from tracked import ROWS, TIMINGS, about, leave_results
from tracked import evaluated as leave_evaluated

from mnist_lstm import UserError, cli, commands
from mnist_lstm.data import datasets, idx, mirrors, photo
from mnist_lstm.files import sha256
from mnist_lstm.learning import group
from mnist_lstm.learning.group import Parted
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline import launch as launcher
from mnist_lstm.pipeline import params, stage
from mnist_lstm.pipeline.launch import OWN_STORE, leave
from mnist_lstm.pipeline.result_files import (
    SplitRecord,
    Training,
    read_json,
    read_run,
    write_json,
    write_rows,
)
from mnist_lstm.pipeline.timing import now
from mnist_lstm.runs import champions, experiment, groups, resolve, workers
from mnist_lstm.runs.history import History, Partial
from mnist_lstm.runs.predictor import of_version
from mnist_lstm.runs.resolve import find
from mnist_lstm.serving import app as serving
from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.entrant import Decision, Entrant
from mnist_lstm.tracking.follower import Follower
from mnist_lstm.tracking.projection import project as show
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun
from mnist_lstm.tracking.view import View

STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
MNIST = datasets.DATASETS["mnist"].files
NOBODY = 65534


@dataclass(frozen=True)
class Project:
    """A folder with the recipe and dvc.yaml, in which stages run in this process."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    fresh_store: Path  # a folder with an empty MLflow store, to copy from

    def edit(self, old: str, new: str) -> None:
        """Edit params.yaml; `old` is a pattern."""
        path = self.folder / "params.yaml"
        text, count = re.subn(old, new, path.read_text(), count=1)
        assert count, old
        path.write_text(text)

    def has_mps(self, there: bool) -> None:
        """Make torch say that Apple's GPU is there, or is not."""
        known = torch.backends.mps.is_available
        # torch._dynamo, which may be imported in the meantime, asks for `__wrapped__`
        self.monkeypatch.setattr(torch.backends.mps, "is_available", wraps(known)(lambda: there))

    def run(self, name: str) -> str:
        """Run a stage with its arguments from dvc.yaml; returns the message of its refusal."""
        _, script, *paths = shlex.split(STAGES[name]["cmd"])
        self.monkeypatch.setattr(sys, "argv", [script, *paths])
        with pytest.raises(SystemExit) as exited:
            stage.run(getattr(importlib.import_module(name), name))
        assert isinstance(exited.value.code, str)
        return exited.value.code

    def fetch_from(self, *sources: str) -> str:
        """The message of fetch for MNIST with these mirrors."""
        self.edit("dataset: digits", "dataset: mnist")
        self.monkeypatch.setattr(mirrors, "mirror_list", lambda *_: iter(sources))
        return self.run("fetch")

    def passed_over(self, source: str) -> str:
        """The line that fetch prints about a bad mirror."""
        error = self.fetch_from(source)
        (line,) = re.findall(r"(?m)^mirror .*", self.capsys.readouterr().out)
        assert line.removeprefix("mirror ") in error
        return line

    def mirror_of(self, content: Callable[[str], bytes]) -> str:
        folder = self.folder / "mirror"
        folder.mkdir()
        for name in MNIST:
            (folder / name).write_bytes(content(name))
        return str(folder)

    def raw(self, folder: str = "data/raw", **files: bytes) -> Path:
        """Write the four files of a data set and its classes, some of them replaced."""
        path = self.folder / folder
        path.mkdir(parents=True)
        images, labels = np.zeros((300, 8, 8), np.uint8), np.zeros(300, np.uint8)
        for name in datasets.FILES:
            (path / name).write_bytes(idx.encode(images if "images" in name else labels))
        (path / datasets.CLASSES).write_text("".join(f"{digit}\n" for digit in range(10)))
        for name, content in files.items():
            (path / getattr(datasets, name)).write_bytes(content)
        return path

    def sequences(self) -> None:
        for split in ("train", "validation", "test"):
            drawn(300, seed=0).save(self.folder / "data" / "sequences" / f"{split}.safetensors")

    def training(self) -> Path:
        folder = self.folder / "results" / "train"
        record = replace(FINISHED, fingerprint="none", ended=TIMINGS[-1]["time"])
        Training(record, ROWS, TIMINGS).write(folder)
        small_model().save(folder / "model.safetensors")
        return folder

    def with_history(self, results: bool) -> None:
        """Make the folder a DVC repository, with one result or none."""
        Repo.init(no_scm=True).close()
        if results:
            self.training()
            write_lock(self.folder)

    def store(self, content: bytes = b"") -> str:
        """The message when the MLflow store is opened with this content in its file."""
        if content:
            (self.folder / "mlflow.db").write_bytes(content)
        with pytest.raises(TrackingError) as error:
            TrackedRun(open_store(Path()), about())
        return str(error.value)


@pytest.fixture
def project(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_store: Path,
) -> Iterator[Project]:
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    shutil.copy(PROJECT / "recipes" / "quick.yaml", tmp_path / "params.yaml")
    tmp_path.chmod(0o755)  # so that `ordinary_user` can read it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", zygote.Blank.savefig)
    before = torch.are_deterministic_algorithms_enabled()
    yield Project(tmp_path, monkeypatch, capsys, fresh_store)
    for folder in (tmp_path, tmp_path / "data"):
        if folder.is_dir():
            folder.chmod(0o755)
    torch.use_deterministic_algorithms(before)


def edited(*changes: str) -> Callable[[Project], str]:
    """Each pattern is followed by its replacement."""

    def provoke(project: Project) -> str:
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            project.edit(old, new)
        return project.run("fetch")

    return provoke


def params_are(content: bytes) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        (project.folder / "params.yaml").write_bytes(content)
        return project.run("fetch")

    return provoke


def no_params(project: Project) -> str:
    (project.folder / "params.yaml").unlink()
    return project.run("fetch")


def mirror_has(content: Callable[[str], bytes]) -> Callable[[Project], str]:
    return lambda project: project.passed_over(project.mirror_of(content))


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def silent(**limits: float) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        for name, value in limits.items():
            project.monkeypatch.setattr(mirrors, name, value)
        with silent_server() as url:
            return project.passed_over(url)

    return provoke


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def http_404(project: Project) -> str:
    (project.folder / "empty").mkdir()
    handler = partial(_Quiet, directory=str(project.folder / "empty"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return project.passed_over(f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.shutdown()


def mirror_is_a_file(project: Project) -> str:
    return project.passed_over(str(project.folder / "params.yaml"))


def malformed(content: bytes) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.raw(TRAIN_IMAGES=content)
        return project.run("preprocess")

    return provoke


def raw_without(name: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        (project.raw() / name).unlink()
        return project.run("preprocess")

    return provoke


def labels_are(*labels: int) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.raw(TRAIN_LABELS=idx.encode(np.array(labels, np.uint8)))
        return project.run("preprocess")

    return provoke


def own(**files: bytes) -> Callable[[Project], str]:
    """The message of fetch for the user's own files, some of them wrong."""

    def provoke(project: Project) -> str:
        project.edit("dataset: digits", "dataset: own")
        project.raw("data/own", **files)
        return project.run("fetch")

    return provoke


def own_without(name: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.edit("dataset: digits", "dataset: own")
        (project.raw("data/own") / name).unlink()
        return project.run("fetch")

    return provoke


def own_twice(project: Project) -> str:
    project.edit("dataset: digits", "dataset: own")
    (project.raw("data/own") / datasets.TEST_LABELS.removesuffix(".gz")).touch()
    return project.run("fetch")


def too_few_own(project: Project) -> str:
    project.edit("dataset: digits", "dataset: own")
    project.edit("size: 237", "size: 300")
    project.raw()
    return project.run("preprocess")


def too_few_own_to_train(project: Project) -> str:
    project.edit("dataset: digits", "dataset: own")
    project.edit("train_size: null", "train_size: 300")
    project.raw()
    return project.run("preprocess")


def too_few_to_train(project: Project) -> str:
    project.sequences()
    project.edit("batch_size: 64", "batch_size: 301")
    return project.run("train")


def foreign_sequences(project: Project) -> str:
    project.sequences()
    (project.folder / "data" / "sequences" / "train.safetensors").write_bytes(b"other")
    return project.run("train")


def training_without(name: str, instead: bytes | None = None) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.sequences()
        path = project.training() / name
        path.unlink()
        if instead is not None:
            path.write_bytes(instead)
        return project.run("evaluate")

    return provoke


def device(name: str, gpus: int) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.sequences()
        project.edit("device: auto", f"device: {name}")
        project.monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        project.has_mps(False)
        return project.run("train")

    return provoke


def among_processes(project: Project, old: str = "", new: str = "", rank: int = 0) -> str:
    """Train as one of two processes that torchrun started."""
    project.sequences()
    project.edit(old, new)
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank)):
        project.monkeypatch.setenv(name, str(value))
    project.has_mps(True)
    return project.run("train")


def among_processes_with_gpus(name: str, gpus: int) -> Callable[[Project], str]:
    """Train as the second of two processes."""

    def provoke(project: Project) -> str:
        project.edit("device: auto", f"device: {name}")
        project.monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return among_processes(project, "processes: 1", "processes: 2", rank=1)

    return provoke


def among_processes_on_a_mac(project: Project) -> str:
    project.edit("device: auto", "device: mps")
    return among_processes(project, "processes: 1", "processes: 2")


def left_by_a_process(project: Project) -> str:
    @contextmanager
    def joined(_: torch.device) -> Iterator[None]:
        raise Parted("another process of this training cannot be reached: Connection reset")
        yield

    project.monkeypatch.setattr(group, "joined", joined)
    return among_processes(project, "processes: 1", "processes: 2")


def with_too_little_memory(project: Project) -> str:
    def larger_than_any(**_: object) -> torch.Tensor:
        return torch.empty(2**46, dtype=torch.uint8)

    project.sequences()
    project.monkeypatch.setattr("mnist_lstm.learning.build.RowLSTM", larger_than_any)
    return project.run("train")


def failing_processes(reason: str = "") -> Callable[[Project], str]:
    """Processes that fail; with a `reason`, because they could not reach each other."""

    def provoke(project: Project) -> str:
        def launch(*_: object) -> Callable[..., None]:
            if reason:
                with pytest.raises(SystemExit):
                    leave("train", reason)
            raise ChildFailedError("python", {0: ProcessFailure(0, 1, 1, "")})

        project.sequences()
        project.edit("processes: 1", "processes: 2")
        project.monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch)
        project.monkeypatch.setenv("OMP_NUM_THREADS", "1")
        project.monkeypatch.setenv("RANK", "0")
        project.monkeypatch.setattr(launcher, "is_needed", lambda _: True)
        project.monkeypatch.setenv(*OWN_STORE)
        return project.run("train")

    return provoke


def without_bfloat16(project: Project) -> str:
    project.sequences()
    project.edit("precision: auto", "precision: bfloat16")
    project.monkeypatch.setattr("mnist_lstm.learning.precision.works", lambda *_: False)
    return project.run("train")


def diverging(project: Project) -> str:
    """Each step multiplies the weights by -999."""
    project.sequences()
    for old, new in (
        ("learning_rate: 0.005", "learning_rate: 1.0"),
        ("weight_decay: 0.0", "weight_decay: 1000.0"),
        ("eval_every: 100", "eval_every: 20"),
    ):
        project.edit(old, new)
    project.monkeypatch.setattr(stage, "code", lambda _: [])  # the project here has no src/
    return project.run("train")


def full_disk(project: Project) -> str:
    """Write the first draft to /dev/full, which fails like a write to a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    project.raw()
    folder = project.folder / "data" / "sequences"
    folder.mkdir()
    (folder / f".train.safetensors.{os.getpid()}.draft").symlink_to("/dev/full")
    line = project.run("preprocess")
    assert list(folder.iterdir()) == []
    return line


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Run the block as an ordinary user: root may write everywhere."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def read_only(project: Project) -> str:
    project.raw()
    (project.folder / "data").chmod(0o555)
    with ordinary_user():
        return project.run("preprocess")


def disk_without_locks(project: Project) -> str:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    project.sequences()
    project.monkeypatch.setattr(stage, "code", lambda _: [])
    project.monkeypatch.setattr("mnist_lstm.learning.checkpoint.Checkpoint.held", refuse)
    return project.run("train")


def file_for_a_folder(project: Project) -> str:
    project.raw()
    (project.folder / "data" / "sequences").touch()
    return project.run("preprocess")


AWAY = "http://127.0.0.1:9"


def followed(project: Project, uri: str = AWAY, *, at_the_end: bool = False) -> str:
    """What is said of a store that fails while a training runs, or only when it has ended."""
    said: list[str] = []
    made: list[Follower] = []

    def open_at_the_end(root: Path) -> Store:
        while not made:
            time.sleep(0.01)
        assert made[0]._ends.wait(60)
        return open_store(root)

    project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if at_the_end:
        project.monkeypatch.setattr("mnist_lstm.tracking.store.open_store", open_at_the_end)
    made.append(follower := Follower(project.folder, about(), said.append))
    while not (at_the_end or said):
        time.sleep(0.01)
    follower.finish("FAILED", about(), now())
    (line,) = said
    return line


def evaluated(project: Project, uri: str = AWAY) -> str:
    project.raw()
    project.sequences()
    project.training()
    shutil.copy(PROJECT / "data" / "published_curve.csv", project.folder / "data")
    project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    _, script, *paths = shlex.split(STAGES["evaluate"]["cmd"])
    project.monkeypatch.setattr(sys, "argv", [script, *paths])
    stage.run(importlib.import_module("evaluate").evaluate)
    (line,) = re.findall(r"(?m)^MLflow store .*", project.capsys.readouterr().out)
    return line


def commanded(project: Project) -> str:
    project.monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert cli.main(["sync"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def commanded_to(*arguments: str, results: bool = True) -> Callable[[Project], str]:
    """The message with which a command refuses, in a project with one result or none."""

    def provoke(project: Project) -> str:
        project.with_history(results)
        assert cli.main(arguments) != 0
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def predicted_without_the_workspaces_model(project: Project) -> str:
    project.with_history(results=True)  # which is then that of a commit, or of an experiment
    project.monkeypatch.setattr(History, "_find_workspace", lambda *_: None)
    assert cli.main(["predict", "picture.png"]) == 2
    return project.capsys.readouterr().err.splitlines()[-1]


def predicted_with_class_names_that_are_no_text(project: Project) -> str:
    Repo.init(no_scm=True).close()
    leave_results(project.folder / "results")
    write_lock(project.folder)
    project.raw(CLASSES=b"\xff\n")
    assert cli.main(["predict", "picture.png"]) == 2
    return project.capsys.readouterr().err.splitlines()[-1]


def without_git(project: Project) -> str:
    Repo.init(no_scm=True).close()
    (project.folder / ".dvc" / "config").write_text("")
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def without_dvcs_folder(project: Project) -> str:
    Repo.init(no_scm=True).close()
    project.monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project.folder / "params.yaml"))
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def project_of_another(project: Project) -> str:
    with Repo.init(no_scm=True) as repo:
        shutil.rmtree(repo.tmp_dir)
    (project.folder / ".dvc" / "tmp").touch()  # as if the folder could not be made
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def git_refuses(project: Project) -> str:
    project.with_history(results=True)
    subprocess.run(["git", "init", "--quiet"], check=True)
    project.monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own, for its tests
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def git_refuses_a_training(project: Project) -> str:
    project.sequences()
    project.monkeypatch.setattr(stage, "code", lambda _: [])
    subprocess.run(["git", "init", "--quiet"], check=True)
    project.monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return project.run("train")


def store_that_is_full(project: Project) -> str:
    from test_faults import full

    shutil.copy(project.fresh_store, project.folder)
    with full():
        return project.store()


def folder_that_is_read_only(project: Project) -> str:
    """What a command says of a folder that it may not write to."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(project.folder / "records"))

    project.monkeypatch.setattr("mnist_lstm.commands.runs.run", refuse)
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def command_on_a_disk_without_locks(project: Project) -> str:
    """The message of `promote` where an earlier one was interrupted."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    decision = Decision("promotion", with_champion(project), {"at": "2026-01-02"})
    with suppress(KeyboardInterrupt), champions.pending(project.folder, decision, lambda _: True):
        raise KeyboardInterrupt
    locks = SimpleNamespace(flock=refuse, LOCK_EX=fcntl.LOCK_EX)
    project.monkeypatch.setattr(champions, "fcntl", locks)
    assert cli.main(["promote", "--rollback"]) == 2
    return project.capsys.readouterr().err.splitlines()[-1]


def name_that_is_too_long(project: Project) -> str:
    project.with_history(results=False)
    assert cli.main(["seeds", "1", "--record", "a" * 300]) == 2
    assert project.capsys.readouterr().err.startswith("mnist-lstm: aaa")
    assert cli.main(["draw", "--model", "a" * 300]) == 2
    return project.capsys.readouterr().err.splitlines()[-1]


def without_stages(project: Project, *command: str) -> str:
    """The message of a command whose stages cannot run, because their code is missing."""
    for git in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "A. Tester"],
        ["git", "config", "user.email", "tester@example.org"],
    ):
        subprocess.run(git, check=True)
    Repo.init().close()
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "the project"], check=True)
    project.monkeypatch.setattr(sys, "executable", str(zygote.folder_of_programs() / "python"))
    assert cli.main(command) == 2
    return project.capsys.readouterr().err.splitlines()[-1]


def a_seed_in_a_folder_beyond_ascii(project: Project) -> str:
    said = "ERROR: unexpected error - 'ascii' codec can't encode character '\\xf6' in position 9"
    project.monkeypatch.setattr(experiment, "run_dvc", lambda *_, **__: (255, [said]))
    return without_stages(project, "seeds", "1")


def a_seed_without_stages(project: Project) -> str:
    return without_stages(project, "seeds", "1")


def trained_as(project: Project, make: Callable[[], object]) -> str:
    """What `seeds` says of an experiment that dvc made, with what `make` leaves in the folder."""

    def dvc(*arguments: str, **_: object) -> tuple[int, list[str]]:
        make()
        name = arguments[arguments.index("--name") + 1]
        head = run_git("rev-parse", "HEAD")
        run_git("add", "--all")
        run_git("commit", "--quiet", "--allow-empty", "--message", name)
        run_git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
        run_git("reset", "--quiet", "--soft", head)
        return 0, []

    project.monkeypatch.setattr(experiment, "run_dvc", dvc)
    return without_stages(project, "seeds", "1")


def run_git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def a_seed_without_results(project: Project) -> str:
    return trained_as(project, lambda: None)


def a_seed_with_other_parameters(project: Project) -> str:
    return trained_as(project, lambda: (project.training(), write_lock(project.folder)))


def a_seed_whose_code_is_edited(project: Project) -> str:
    digests = iter(["before", "after"])
    project.monkeypatch.setattr(experiment, "code_digest", lambda _: next(digests))
    return without_stages(project, "seeds", "1")


def a_trial_without_stages(project: Project) -> str:
    Path("space.yaml").write_text("model.hidden_size: [16, 32]\n")
    return without_stages(project, "search", "1", "--space", "space.yaml")


def storage(address: str) -> Callable[[Project], str]:
    """What a search says of a database that does not open."""

    def provoke(project: Project) -> str:
        project.with_history(results=False)
        Path("space.yaml").write_text("model.hidden_size: [16, 32]\n")
        project.monkeypatch.setattr(experiment, "code_digest", lambda _: "code")
        project.monkeypatch.setattr(workers, "TRIES", 1)
        project.monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
        assert cli.main(["search", "1", "--space", "space.yaml", "--storage", address]) == 2
        return project.capsys.readouterr().err.splitlines()[-1]

    return provoke


def space(text: str, *arguments: str) -> Callable[[Project], str]:
    """What a search says of a file of what is tried."""

    def provoke(project: Project) -> str:
        Path("space.yaml").write_text(text)
        assert cli.main(["search", "1", "--space", "space.yaml", *arguments]) == 2
        return project.capsys.readouterr().err.splitlines()[-1]

    return provoke


def parents_without_a_store(project: Project) -> str:
    """What `seeds` says of its last step where the store does not open."""
    project.with_history(results=False)
    project.monkeypatch.setattr(groups, "parents", lambda _: [None])
    (project.folder / "mlflow.db").write_bytes(b"no database")
    commands.show_groups(project.folder, "seeds")
    return project.capsys.readouterr().err.splitlines()[-1]


def records_of_no_search(project: Project) -> str:
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    write_json(project.folder / "searches" / "trial-0.json", {"number": 0})
    groups.parents(commands.read_history(project.folder, "verify"))
    return project.capsys.readouterr().err.rstrip("\n")


def recipes_of_two_data_sets(project: Project) -> str:
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    for name, dataset in (("one", "digits"), ("two", "mnist")):
        project.edit(r"dataset: \w+", f"dataset: {dataset}")
        shutil.copy("params.yaml", f"{name}.yaml")
        settings = params.flatten(params.load(Path("params.yaml")).model_dump())
        for seed in range(2):
            record = record_of_seed(settings | {"seed": seed}, training_id=f"{name} {seed}")
            write_json(project.folder / name / f"seed-{seed}.json", record)
    assert cli.main(["compare", "one.yaml", "two.yaml"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def recipes_with_a_picture(project: Project) -> str:
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    for size in (32, 64):
        project.edit(r"hidden_size: \d+", f"hidden_size: {size}")
        shutil.copy("params.yaml", f"{size}.yaml")
        settings = params.flatten(params.load(Path("params.yaml")).model_dump())
        for seed in range(2):
            record = record_of_seed(settings | {"seed": seed}, training_id=f"{size} {seed}")
            write_json(project.folder / str(size) / f"seed-{seed}.json", record)
    assert cli.main(["compare", "32.yaml", "64.yaml", "--out", "curves.png"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def recipes_without_seeds(project: Project) -> str:
    other = Path("params.yaml").read_text().replace("hidden_size: 64", "hidden_size: 32")
    Path("other.yaml").write_text(other)
    return commanded_to("compare", "params.yaml", "other.yaml")(project)


def said_by_sync(project: Project) -> str:
    """The last line of sync: others may say that a store is slow to open."""
    return project.capsys.readouterr().err.splitlines()[-1]


def a_damaged_decision(project: Project) -> str:
    project.with_history(results=False)
    (project.folder / champions.FILE).write_text("<<<<<<< HEAD\n")
    assert cli.main(["sync"]) == 2
    return said_by_sync(project)


def decided(project: Project) -> None:
    """Write a line into champions.jsonl, about a model that is nowhere."""
    entrant = Entrant("drawn", "a" * 32, "b" * 64, "drawn", "d" * 64, 10, 0.5)
    champions.write(project.folder, Decision("promotion", entrant, {"at": "2026-01-02"}))


def a_champion_without_results(project: Project) -> str:
    project.with_history(results=False)
    decided(project)
    assert cli.main(["sync"]) == 1
    return said_by_sync(project)


def a_former_champion_without_results(project: Project) -> str:
    entrant = with_champion(project)
    decided(project)
    champions.write(project.folder, Decision("promotion", entrant, {"at": "2026-01-03"}))
    assert cli.main(["sync"]) == 0
    out, err = project.capsys.readouterr()
    assert "drawn: the registry lacks its promotion of 2026-01-03: restored\n" in out
    assert "2026-01-02" not in out
    return err.splitlines()[-1]


def no_run_is_meant(
    name: str, *, committed: bool = False, others: int = 0, uri: str = ""
) -> Callable[[Project], str]:
    """The message for a RUN, in a project that has one run, or only its tables in git."""

    def provoke(project: Project) -> str:
        project.with_history(results=True)
        history = History(project.folder)
        (result,) = history.results
        if committed:
            partial = Partial("e22c829", None, {}, {}, commits=["e22c829"])
            history.results, history.partial = [], [partial]
        history.results += [
            replace(result, record=replace(result.record, training_id=f"{number:032}"))
            for number in range(others)
        ]
        if uri:
            project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError) as error:
            find(history, name)
        return str(error.value)

    return provoke


def run_that_is_in_mlflow_alone(project: Project) -> str:
    project.with_history(results=True)
    shutil.copy(project.fresh_store, project.folder)
    run = TrackedRun(open_store(project.folder), about("f" * 32))
    with pytest.raises(UserError) as error:
        find(History(project.folder), run.id)
    return str(error.value)


def run_that_was_made_elsewhere(experiment: str | None) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.with_history(results=True)
        shutil.copy(project.fresh_store, project.folder / "shared.db")
        uri = f"sqlite:///{project.folder / 'shared.db'}"
        project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        origin = {"user": "bo", "host": "far", "folder": "/its/clone"}
        TrackedRun(open_store(Path()), about("f" * 32, dvc_experiment=experiment, **origin))
        with pytest.raises(UserError) as error:
            find(History(project.folder), "ffff")
        return str(error.value)

    return provoke


def champion_that_was_made_elsewhere(project: Project) -> str:
    shutil.copy(project.fresh_store, project.folder / "shared.db")
    uri = f"sqlite:///{project.folder / 'shared.db'}"
    project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with_champion(project, user="bo", host="far", folder="/its/clone")
    assert cli.main(["predict", "picture.png"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def made_again(**told: object) -> Callable[[Project], str]:
    """The message of `reproduce` for a run with these values in run.json, made from one commit."""

    def provoke(project: Project) -> str:
        project.with_history(results=True)
        for arguments in (["init", "--quiet"], [*AUTHOR, "commit", "--allow-empty", "-qm", "one"]):
            subprocess.run(["git", *arguments], check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True)
        path = project.folder / "results" / "train" / "run.json"
        write_json(path, read_json(path) | {"commit": head.stdout.decode().strip()} | told)
        write_lock(project.folder)
        assert cli.main(["reproduce", "drawn"]) == 2
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def made_again_from_a_link_to_nothing(project: Project) -> str:
    (project.raw("data/own") / "link").symlink_to("nothing")
    said = made_again(dataset="own", patch="")(project)
    assert "data/own/link: cannot be copied" in said
    assert "(No such file or directory);" in said
    return said


PATCH = (
    "diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+1\n"
)


def patch_of_the_store(answer: str = "") -> Callable[[Project], str]:
    """What `reproduce` says of a patch that MLflow alone has, after that answer at a terminal."""

    def provoke(project: Project) -> str:
        found = resolve.find_results
        project.monkeypatch.setattr(
            resolve, "find_results", lambda *of: replace(found(*of), from_store=True)
        )
        for stream in (typed := StringIO(answer), sys.stderr):
            project.monkeypatch.setattr(stream, "isatty", lambda: bool(answer), raising=False)
        project.monkeypatch.setattr(sys, "stdin", typed)
        *_, last = made_again(patch=PATCH)(project).splitlines()
        return last.removeprefix("Run it? (yes, no, or diff to read it) ")

    return provoke


AUTHOR = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")


def made_again_from_the_store(text: str, *runs: str) -> Callable[[Project], str]:
    """The message of `reproduce` for runs that only the MLflow store has, without files."""

    def provoke(project: Project) -> str:
        project.with_history(results=False)
        shutil.copy(project.fresh_store, project.folder)
        for training_id in runs:
            TrackedRun(open_store(project.folder), about(training_id))
        assert cli.main(["reproduce", text]) == 2
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def predicted(
    draw: Callable[[Path], object], *arguments: str, code: int = 1
) -> Callable[[Project], str]:
    """The message of `predict` for picture.png, with a model for images like MNIST's."""

    def provoke(project: Project) -> str:
        project.with_history(results=False)
        small_model().save(project.folder / "model.safetensors")
        draw(project.folder / "picture.png")
        arguments_of = ["predict", "picture.png", "--model", "model.safetensors", *arguments]
        assert cli.main(arguments_of) == code
        return project.capsys.readouterr().err.splitlines()[-1]

    return provoke


def page_of(*arguments: str, change: Callable[[RowLSTM], object] | None = None, code: int = 0):
    """The message of `draw` for a model that is changed before."""

    def provoke(project: Project) -> str:
        project.with_history(results=False)
        model = small_model()
        if change:
            change(model)
        project.monkeypatch.setattr(RowLSTM, "load", lambda path: model)
        (project.folder / "model.safetensors").touch()
        project.monkeypatch.setattr("webbrowser.open", lambda address: False)
        assert cli.main(["draw", "--model", "model.safetensors", *arguments]) == code
        return project.capsys.readouterr().err.splitlines()[-1]

    return provoke


def page_beside_other_images(project: Project) -> str:
    folder = project.folder / "data" / "sequences"
    folder.mkdir(parents=True, exist_ok=True)
    drawn(5, seed=0).save(folder / "test.safetensors")
    return page_of()(project)


def exported(out: str, code: int) -> Callable[[Project], str]:
    """The last line of `export` for a model in a file."""

    def provoke(project: Project) -> str:
        project.with_history(results=False)
        small_model().save(project.folder / "model.safetensors")
        assert cli.main(["export", "--model", "model.safetensors", "--out", out]) == code
        return project.capsys.readouterr().err.splitlines()[-1]

    return provoke


def exported_without_a_page(project: Project) -> str:
    model = small_model()
    with_other_pooling(model)
    project.monkeypatch.setattr(RowLSTM, "load", lambda path: model)
    return exported("served", code=0)(project)


def served_from(change: Callable[[Path], object], *names: str) -> Callable[[Project], str]:
    """The message of the server for a folder that was exported and then changed."""

    def provoke(project: Project) -> str:
        exported("served", code=0)(project)
        change(project.folder / "served")
        with pytest.raises(SystemExit) as stopped:
            serving.main(["served", "127.0.0.1", "0", *names])
        return str(stopped.value)

    return provoke


def with_other_pooling(model: RowLSTM) -> None:
    model.pooling = "attention"


def without_a_window(model: RowLSTM) -> None:
    del model.window


def with_huge_weights(model: RowLSTM) -> None:
    with torch.no_grad():
        model.head.bias.fill_(1e6)


GLYPH = np.eye(99) * 255


def grey(levels: np.ndarray) -> Callable[[Path], None]:
    return Image.fromarray(levels.astype(np.uint8)).save


def cut(path: Path) -> None:
    grey(np.random.default_rng(0).integers(0, 256, (99, 99)))(path)
    path.write_bytes(path.read_bytes()[:1000])


def on_page(ink: np.ndarray) -> np.ndarray:
    return 255 - 255 * np.pad(ink, 40)


def picture_without_memory(project: Project) -> str:
    def arrange(*_: Any) -> object:
        raise MemoryError

    project.monkeypatch.setattr(photo, "arrange", arrange)
    return predicted(grey(GLYPH))(project)


def picture_of_another(project: Project) -> str:
    really = photo.read

    def read(*arguments: Any) -> object:
        with ordinary_user():
            return really(*arguments)

    def draw(path: Path) -> None:
        grey(GLYPH)(path)
        path.chmod(0)

    project.monkeypatch.setattr(photo, "read", read)
    return predicted(draw)(project)


def with_champion(project: Project, accuracy: float = 0.9, **origin: Any) -> Entrant:
    """Make an MLflow store with a champion of this validation accuracy."""
    project.with_history(results=True)
    shutil.copy(project.fresh_store, project.folder)
    store = open_store(project.folder)
    results = leave_results(project.folder / "results", about(**origin))
    show(store, View.read(results / "train"))
    record = read_run(results / "train" / "run.json")
    identity = (record.name, record.training_id, record.model_sha256, record.dataset)
    entrant = Entrant(*identity, "d" * 64, 10, accuracy)
    note = {"by": "bo", "host": "far"}
    handover.promote(store, registry.register(store, entrant), None, note)
    shutil.rmtree(results)
    return entrant


def champion_without_results(project: Project) -> str:
    with_champion(project)
    assert cli.main(["predict", "picture.png"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def worse_than_the_champion(*more: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        with_champion(project)
        torch.manual_seed(1)
        same = SplitRecord("data/drawn", 10, "d" * 64)
        data = dict.fromkeys(("train", "validation", "test"), same)
        record = about("e" * 32, name="other", data=data)
        results = leave_results(project.folder / "results", record)
        write_json(results / "evaluate" / "metrics.json", {"validation": {"accuracy": 0.8}})
        leave_evaluated(results / "evaluate", "2026-01-02T04:00:00+00:00", 10, "e" * 32)
        write_lock(project.folder)
        assert cli.main(["promote", "other", *more]) == 1
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def behind_git(project: Project) -> str:
    shutil.copy(project.fresh_store, project.folder)
    decided(project)
    return commanded_to("promote", "--rollback", results=False)(project)


def nothing_to_go_back_to(project: Project) -> str:
    shutil.copy(project.fresh_store, project.folder)
    return commanded_to("promote", "--rollback", results=False)(project)


def first_champion_taken_back(project: Project) -> str:
    with_champion(project)
    assert cli.main(["promote", "--rollback"]) == 1
    return project.capsys.readouterr().err.rstrip("\n")


def another_champion_meanwhile(project: Project) -> str:
    """The message if another process promotes a model between comparison and promotion."""
    entrant = with_champion(project)
    store = open_store(project.folder)
    with pytest.raises(TrackingError) as error:
        handover.promote(store, registry.register(store, entrant), None, {})
    return f"mnist-lstm promote: {error.value}"


def interrupted_meanwhile(project: Project) -> str:
    entrant = with_champion(project)
    one, other = (Decision("promotion", entrant, {"at": f"2026-01-0{day}"}) for day in (2, 3))
    with suppress(KeyboardInterrupt), champions.pending(project.folder, one, lambda _: True):
        raise KeyboardInterrupt
    with (
        pytest.raises(UserError) as error,
        champions.pending(project.folder, other, lambda _: True),
    ):
        pass
    return f"mnist-lstm promote: {error.value}"


def changed_tag(change: Callable[[Any], None]) -> Callable[[Project], str]:
    """The message of `promote --rollback` once MLflow's client has changed a tag."""

    def provoke(project: Project) -> str:
        with_champion(project)
        change(open_store(project.folder).client)
        assert cli.main(["promote", "--rollback"]) == 2
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def slow_server(project: Project) -> str:
    project.monkeypatch.setattr(handover, "PATIENCE", -1)
    with pytest.raises(TrackingError) as error:
        with_champion(project)
    return f"mnist-lstm promote: {error.value}"


def served(project: Project) -> str:
    """The message of `make serve` in a project without a champion."""
    shutil.copy(project.fresh_store, project.folder)
    return made(project, "serve", port=0)


def served_from_the_store(damage: Callable[[Project, str], object]) -> Callable[[Project], str]:
    """The message for a champion whose results are gone, after damage to its run in MLflow."""

    def provoke(project: Project) -> str:
        model = {"hidden_size": 16, "num_layers": 1, "dropout": 0.5, "forget_bias": 1.0}
        params = about().params | {"model": model | {"implementation": "fused"}}
        with_champion(project, params=params, image=(8, 8))
        store = open_store(project.folder)
        (run,) = runs(store)
        damage(project, run.info.run_id)
        found = registry.champion(store)
        assert found
        with pytest.raises(UserError) as error:
            of_version(History(project.folder), store, found)
        return f"make serve: {error.value}"

    return provoke


def without_its_run(project: Project, run_id: str) -> None:
    open_store(project.folder).client.delete_run(run_id)


def without_its_record(project: Project, run_id: str) -> None:
    (project.folder / "mlruns" / run_id / "artifacts" / "train" / "run.json").unlink()


def with_other_weights(project: Project, _: str) -> None:
    really = registry.weights

    def weights(store: Store, version: registry.Version) -> dict[str, torch.Tensor]:
        return {name: weight + 1 for name, weight in really(store, version).items()}

    project.monkeypatch.setattr(registry, "weights", weights)


def with_a_damaged_model(project: Project, _: str) -> None:
    (program,) = (project.folder / "mlruns").rglob("model.pt2")
    program.write_bytes(program.read_bytes()[:-100])


def with_other_sizes(project: Project, run_id: str) -> None:
    path = project.folder / "mlruns" / run_id / "artifacts" / "train" / "run.json"
    record = read_json(path)
    record["params"]["model"]["hidden_size"] = 60_000  # weights of 58 GB
    path.chmod(0o644)
    write_json(path, record)


def served_under_a_wrong_name(project: Project) -> str:
    project.monkeypatch.setenv("SERVE_HOSTS", "digits.example.org:5001")
    return made(project, "serve", port=0)


def results_of_several_runs(*arguments: str) -> Callable[[Project], str]:
    """What a command says where a table is not that of the training whose model is beside it."""

    def provoke(project: Project) -> str:
        project.with_history(results=True)
        curve = project.folder / "results" / "train" / "curve.csv"
        write_rows(curve, ROWS[:1])
        assert cli.main(arguments) == 2
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def left_out(damage: Callable[[Path], object]) -> Callable[[Project], str]:
    """What a command says of a file of the only result that is damaged."""

    def provoke(project: Project) -> str:
        project.with_history(results=True)
        damage(project.folder)
        cli.main(["runs"])
        return project.capsys.readouterr().err.splitlines()[0]

    return provoke


def in_the_middle_of_a_merge(folder: Path) -> None:
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n")


def truncated_in_the_cache(folder: Path) -> None:
    md5 = hashlib.md5((folder / "results" / "train" / "run.json").read_bytes()).hexdigest()
    cached = folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_text("{")


def of_another_version(folder: Path) -> None:
    (folder / "results" / "train" / "run.json").write_text("{}")
    write_lock(folder)


def model_that_is_none(project: Project) -> str:
    """Its SHA-256 is the recorded one: this code cannot load it."""
    shutil.copy(project.fresh_store, project.folder)
    record = about()
    folder = leave_results(project.folder / "results", record) / "train"
    (folder / "model.safetensors").write_bytes(b"of another version")
    digest = sha256(folder / "model.safetensors")
    Training(record.finished(TIMINGS[-1]["time"], digest), ROWS, TIMINGS).write(folder)
    project.with_history(results=False)
    write_lock(project.folder)
    assert cli.main(["sync"]) == 1
    (synced,) = project.capsys.readouterr().err.splitlines()
    assert cli.main(["verify", "--fix"]) == 1
    (verified,) = project.capsys.readouterr().err.splitlines()
    assert verified == synced.replace("sync", "verify")
    return synced


def evaluation_of_another(project: Project) -> str:
    write_json(project.folder / "results" / "evaluate" / "metrics.json", {})
    return commanded_to("report")(project)


def evaluated_beside_another(project: Project) -> str:
    project.monkeypatch.setenv("DVC_STAGE", "evaluate")
    project.training()
    write_lock(project.folder)
    write_rows(project.folder / "results" / "train" / "curve.csv", ROWS[:1])
    return project.run("evaluate")


def evaluated_for_a_report(project: Project) -> None:
    folder = project.folder / "results" / "evaluate"
    metrics = {split: {"accuracy": 1.0, "loss": 0.1} for split in ("validation", "test")}
    write_json(folder / "metrics.json", metrics)
    write_rows(folder / "classes.csv", [{"class": "one"}, {"class": "other"}])
    write_rows(folder / "predictions.csv", [{"split": "test", "actual": 0, "predicted": 1}])
    write_rows(folder / "reading.csv", [{"rows": 1, "validation_accuracy": 0, "test_accuracy": 0}])
    leave_evaluated(folder, "2026-01-02T04:00:00+00:00", 10)


def page_that_cannot_be_written(project: Project) -> str:
    evaluated_for_a_report(project)
    return commanded_to("report", "--out", "params.yaml/report.html")(project)


def report_without_the_published_curve(project: Project) -> str:
    evaluated_for_a_report(project)
    project.with_history(results=True)
    path = project.folder / "results" / "train" / "run.json"
    write_json(path, read_json(path) | {"dataset": "mnist"})
    write_lock(project.folder)
    assert cli.main(["report"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def store_at(uri: str) -> Callable[[Project], str]:
    def provoke(project: Project) -> str:
        project.monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return project.store()

    return provoke


def store_that_refuses(code: int, who: str = "") -> Callable[[Project], str]:
    class Refusing(_Quiet):
        def do_GET(self) -> None:
            self.send_error(code)

    def provoke(project: Project) -> str:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                return store_at(f"http://{who}127.0.0.1:{server.server_port}")(project)
            finally:
                server.shutdown()

    return provoke


def store_in_a_folder_of_another(project: Project) -> str:
    project.folder.chmod(0o555)
    with ordinary_user():
        return project.store()


def store_of_another(project: Project) -> str:
    with tempfile.TemporaryDirectory() as name:  # other users can reach it, unlike pytest's
        folder = Path(name)
        project.monkeypatch.chdir(folder)
        shutil.copy(project.fresh_store, folder)
        open_store(folder)
        (folder / "mlflow.db").chmod(0o444)
        (folder / ".mlflow.lock").chmod(0o666)
        folder.chmod(0o555)
        with ordinary_user():
            line = project.store()
        folder.chmod(0o755)
        project.monkeypatch.chdir(project.folder)
        return line


def full_artifacts(project: Project) -> str:
    """The error of a copy from a temporary folder to a full disk, which the kernel makes."""
    shutil.copy(project.fresh_store, project.folder)
    there, why = str(project.folder / "mlruns" / "curve.csv"), os.strerror(errno.ENOSPC)
    with pytest.raises(TrackingError) as error, open_store(project.folder).errors():
        raise OSError(errno.ENOSPC, why, "/tmp/draft", None, there)
    assert there in str(error.value)
    return str(error.value)


def store_without_a_table(project: Project) -> str:
    shutil.copy(project.fresh_store, project.folder)
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        database.execute("DROP TABLE latest_metrics")
    database.close()
    return project.store()


def store_in_use(project: Project) -> str:
    shutil.copy(project.fresh_store, project.folder)
    store, path = open_store(project.folder), project.folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path, timeout=0)) as other:
        one.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError) as error, store.errors():
            other.execute("BEGIN EXCLUSIVE")
    return str(error.value)


def put_right(change: Callable[[Path], object]) -> Callable[[Project], str]:
    """What a command says of the store of a project in which that has happened."""

    def provoke(project: Project) -> str:
        shutil.copy(project.fresh_store, project.folder)
        open_store(project.folder)
        change(project.folder)
        project.with_history(results=False)
        assert cli.main(["sync"]) == 0
        return project.capsys.readouterr().err.rstrip("\n")

    return provoke


def delete_the_experiment(folder: Path) -> None:
    store = open_store(folder)
    store.client.delete_experiment(store.experiment_id)


def move_the_project(folder: Path) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = 'file:///elsewhere/mlruns'")
    database.close()


def store_of_another_version(project: Project) -> str:
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    database.close()
    return project.store()


def changed_meanwhile(project: Project) -> str:
    def fetch(*_: object, **__: object) -> None:
        project.edit("dataset: digits", "dataset: mnist")

    project.monkeypatch.setattr(mirrors, "fetch", fetch)
    return project.run("fetch")


def foreign_package(project: Project) -> str:
    def demo(params: object, out: Path) -> None:
        """A stage in this file, not beside the package."""

    project.monkeypatch.setattr(sys, "argv", ["demo.py", "out"])
    with pytest.raises(SystemExit) as exited:
        stage.run(demo)
    return str(exited.value.code)


def elsewhere(project: Project) -> str:
    (project.folder / "dvc.yaml").unlink()
    return project.run("fetch")


def commanded_elsewhere(project: Project) -> str:
    (project.folder / "dvc.yaml").unlink()
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def commanded_in_a_deleted_folder(project: Project) -> str:
    (gone := project.folder / "gone").mkdir()
    project.monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(["runs"]) == 2
    return project.capsys.readouterr().err.rstrip("\n")


def last_line_of(*command: str | Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr.splitlines()[-1]


def bare_python(project: Project) -> str:
    return last_line_of(sys.executable, "-S", PROJECT / "src" / "fetch.py", "data/raw")


def make_env(project: Project, **environment: str) -> str:
    for name in ("requirements.lock", "pyproject.toml", "scripts/env.sh"):
        (project.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, project.folder / name)
    return last_line_of("sh", "scripts/env.sh", **environment)


def env_without_python(project: Project) -> str:
    programs = project.folder / "programs"
    programs.mkdir()
    for name in ("sh", "dirname", "cksum", "cat", "uname", "mkdir", "rm"):
        (programs / name).symlink_to(shutil.which(name) or "")
    return make_env(project, PATH=str(programs))


def another_make(project: Project) -> str:
    (project.folder / ".venv").mkdir()
    (project.folder / ".venv" / "making").write_text(str(os.getpid()))
    return make_env(project)


def port_in_use(project: Project, target: str = "ui", script: str | None = None) -> str:
    with silent_server() as url:
        return made(project, target, int(url.rpartition(":")[2].rstrip("/")), script)


def made(project: Project, target: str, port: int | str, script: str | None = None) -> str:
    """The message with which `make ui` or `make serve` refuses."""
    shutil.copy(PROJECT / "Makefile", project.folder)
    (project.folder / "scripts").mkdir()
    shutil.copy(PROJECT / "scripts" / f"{script or target}.py", project.folder / "scripts")
    for name in ("scripts/env.sh", ".venv/bin/activate"):  # the environment is the one of the tests
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).touch()
    programs = (zygote.folder_of_programs(), Path(sys.executable).parent, os.environ["PATH"])
    path = os.pathsep.join(map(str, programs))
    command = ("make", "--silent", target, f"PORT={port}")
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return done.stderr.splitlines()[0]


def server_main() -> Callable[[str], None]:
    path = PROJECT / "scripts" / "mlflow_server.py"
    spec = importlib.util.spec_from_file_location("mlflow_server", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[str], None] = module.main
    return main


def server_without_a_package(project: Project) -> str:
    main = server_main()
    project.monkeypatch.setenv("BACKEND", "postgresql://mlflow@127.0.0.1/mlflow")
    project.monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main("0")
    return str(ended.value)


def server_where_team_is_installed(project: Project) -> str:
    main = server_main()
    project.monkeypatch.setenv("ARTIFACTS", "s3://mlflow/artifacts")
    project.monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "boto3" or None)
    with pytest.raises(SystemExit) as ended:
        main("0")
    return str(ended.value)


def server_without_a_password(project: Project) -> str:
    main = server_main()
    project.monkeypatch.setenv("LOGIN", "1")
    project.monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "secret")
    project.monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    with pytest.raises(SystemExit) as ended:
        main("0")
    return str(ended.value)


PARAMS = "<stage>: params.yaml: "
MIRROR = "mirror <mirror>: "
FILE = f"{MIRROR}<file>: "
MORE = " (and <number> more files)"
IDX = "<stage>: <file>: "
OWN = "fetch: <file>: "
SEE = "docs/datasets.md"
DEVICE = "train: train.device is "
NO_MAC = "this is no Mac with Apple silicon and macOS 14 or newer"
STORE = "MLflow store <address>: "
NO_RUN = "no run is called '<text>'"
PREDICT = "mnist-lstm predict: "
ELSEWHERE = (
    "'<text>' is a run in MLflow (<name>), made by <user> on <host>, and its results are not here: "
)
PICTURE = f"{PREDICT}<file>: "
FETCH = (
    "`dvc repro` makes the results of params.yaml; `dvc fetch --all-commits --run-cache` downloads "
    "what a DVC remote has"
)

MET = {
    f"{PARAMS}<key> must be at least <limit>, is <value>": edited("steps: 1500", "steps: 0"),
    f"{PARAMS}<key> must be above <limit>, is <value>": edited("rate: 0.005", "rate: 0"),
    f"{PARAMS}<key> must be at most <limit>, is <value>": edited("rotation: 0.0", "rotation: 200"),
    f"{PARAMS}<key> must be below <limit>, is <value>": edited("dropout: 0.2", "dropout: 1.0"),
    f"{PARAMS}<key> must be finite, is <value>": edited("rate: 0.005", "rate: .inf"),
    f"{PARAMS}<key> must be a whole number, is <value>": edited("steps: 1500", "steps: 1.5"),
    f"{PARAMS}<key> must be a number, is <value>": edited("rate: 0.005", "rate: true"),
    f"{PARAMS}<key> must be a number, is <value> (text); write <number>": edited(
        "rate: 0.005", "rate: 5e-3"
    ),
    f"{PARAMS}<key> must be true or false, is <value>": edited("best: false", "best: 1"),
    f"{PARAMS}<key> must be text, is <value>": edited("device: auto", "device: 0"),
    f"{PARAMS}<key> must be Unicode text, is <value>": edited("device: auto", r'device: "\\ud800"'),
    f"{PARAMS}<key> must be <one> or <another>, is <value>": edited("fused", "fast"),
    f"{PARAMS}train.device must be auto, cpu, cuda, cuda:N or mps, is <value>": edited(
        "device: auto", "device: gpu"
    ),
    f"{PARAMS}fetch.dataset must be one of <names>, is <value>": edited(
        "dataset: digits", "dataset: imagenet"
    ),
    f"{PARAMS}<key> is not a known key; did you mean <key>?": edited(
        "steps:", "dropout: 0\n  steps:"
    ),
    f"{PARAMS}<key> is not a known key; known keys here: <keys>": edited(
        "steps:", "lr: 1\n  steps:"
    ),
    f"{PARAMS}<key> is missing": edited("(?m)^seed.*", ""),
    f"{PARAMS}<mistake> (and <number> more)": edited("learning_rate", "learningrate"),
    f"{PARAMS}<key> must be a section (keys and values), is <value>": edited(
        "promote:\n.*", "promote: 3"
    ),
    f"{PARAMS}must have sections, is <value>": params_are(b""),
    f"{PARAMS}line <number>, column <number>: <key>: occurs twice in the section": edited(
        "(?m)^seed", "seed: 1\nseed"
    ),
    f"{PARAMS}line <number>, column <number>: <key>: has the YAML tag <tag>; write the value "
    "alone": edited("seed: 0", "seed: !!python/name:os.system x"),
    f"{PARAMS}line <number>, column <number>: <what is wrong there>": edited("seed: 0", "seed: ["),
    f"{PARAMS}has the marks of an unresolved merge": params_are(
        b"<<<<<<< HEAD\nseed: 0\n=======\nseed: 1\n>>>>>>> theirs\n"
    ),
    f"{PARAMS}not UTF-8 text (<reason> at byte <number>)": params_are(b"\xff\xfe"),
    f"{PARAMS}not readable as YAML: <reason>": params_are(b"seed: \x00"),
    f"{PARAMS}<key> must be in its section: write `<section>:`, and below it `<name>`": edited(
        "seed: 0", "train.steps: 5\nseed: 0"
    ),
    f"{PARAMS}no such file; `git checkout params.yaml` brings it back": no_params,
    "mnist-lstm seeds: <file>: no such file": commanded_to("seeds", "1", "other.yaml"),
    "mnist-lstm seeds: <file>: no recipe, but what a search tries: "
    "`mnist-lstm search 24 --space <file>`": commanded_to(
        "seeds", "1", str(PROJECT / "recipes" / "search.yaml")
    ),
    "mnist-lstm seeds: <file>: Is a directory": commanded_to("seeds", "1", "."),
    f"{PARAMS}preprocess.validation_size must leave images to train on: it is <number>, and "
    "fetch.dataset <name> has <number> training images": edited("size: 237", "size: 1437"),
    f"{PARAMS}preprocess.train_size must be at most the <number> images that fetch.dataset <name> "
    "has left without the validation images, is <number>": edited(
        "train_size: null", "train_size: 1201"
    ),
    f"{PARAMS}train.batch_size must be at most the <number> images that <name> has left to train "
    "on, is <number>": edited("batch_size: 64", "batch_size: 1201"),
    f"{PARAMS}train.batch_size must be at least train.processes, <number>, is <number>": edited(
        "batch_size: 64", "batch_size: 1", "processes: 1", "processes: 2"
    ),
    f"{PARAMS}train.steps must be at least 2 with train.schedule one-cycle, whose last step has a "
    "learning rate of 0, is <number>": edited(
        r"\bsteps: \d+", "steps: 1", "schedule: constant", "schedule: one-cycle"
    ),
    "<stage>: there is too little memory; lower model.hidden_size or a batch size: "
    "train.batch_size, train.eval_batch_size, evaluate.batch_size": with_too_little_memory,
    "fetch: <name>: no mirror has a correct copy of <files>. Tried: <mirror>: <reason>; <mirror>: "
    "<reason>. Offline, set MNIST_MIRROR to a folder that holds the four files of this data set, "
    "or use a data set that needs no network: `cp recipes/quick.yaml params.yaml`": (
        lambda project: project.fetch_from("/nowhere/mnist", "http://127.0.0.1:9/")
    ),
    f"{MIRROR}cannot be reached (<reason>)": lambda p: p.passed_over("http://127.0.0.1:9/"),
    f"{MIRROR}no answer within <number> s": silent(SOCKET_SECONDS=0.1),
    f"{MIRROR}too slow: a file took more than <number> s": silent(
        SOCKET_SECONDS=1, GRACE_SECONDS=0.1, SLOWEST_BYTES_PER_SECOND=1e12
    ),
    f"{FILE}SHA-256 is <found>, expected <expected>{MORE}": mirror_has(
        lambda name: bytes(MNIST[name].size)
    ),
    f"{FILE}expected <number> bytes, <number> came{MORE}": mirror_has(lambda _: b"half"),
    f"{FILE}a web page came in its place (a login or error page?){MORE}": mirror_has(
        lambda _: b"<html>"
    ),
    f"{FILE}HTTP status <status>{MORE}": http_404,
    f"{FILE}No such file or directory{MORE}": lambda p: p.passed_over(str(p.folder)),
    f"{MIRROR}no such folder": lambda p: p.passed_over("/nowhere/mnist"),
    f"{MIRROR}not a folder": mirror_is_a_file,
    f"{MIRROR}not a usable URL": lambda p: p.passed_over("http://127.0.0.1:x/"),
    f"{MIRROR}expected a folder, a file:// URL or an http(s):// URL": lambda p: p.passed_over(
        "ftp://host/mnist"
    ),
    f"{MIRROR}a user name or password in a mirror's URL is not supported": lambda p: p.passed_over(
        "http://me:secret@127.0.0.1/mnist"
    ),
    f"{IDX}magic: expected 00 00 08 (unsigned bytes), found <bytes>": malformed(b"<html>"),
    f"{IDX}rank: expected <number>, found <number>": malformed(MALFORMED["labels for images"][0]),
    f"{IDX}header: expected <number> bytes, found <number>": malformed(MALFORMED["empty"][0]),
    f"{IDX}dimension <number>: expected at least 1, found 0": malformed(MALFORMED["no images"][0]),
    f"{IDX}dimensions: expected at most <number> values, found <sizes>": malformed(
        MALFORMED["absurd claim"][0]
    ),
    f"{IDX}values: expected <number> bytes (<sizes>), found <number>": malformed(
        MALFORMED["cut"][0]
    ),
    f"{IDX}values: expected <number> bytes (<sizes>), found trailing bytes": malformed(
        MALFORMED["one byte more"][0]
    ),
    f"{IDX}gzip: expected a whole, undamaged stream, found <reason>": malformed(b"\x1f\x8b\x08"),
    f"{IDX}count: expected <number> labels as <file> has images, found <number>": labels_are(1, 2),
    f"{IDX}label <number>: expected a class from 0 to <number>, found <number>": labels_are(
        *[9] * 299, 10
    ),
    "train: <file>: not row sequences as preprocess writes them (<reason>); "
    "`dvc repro --force preprocess` makes it anew": foreign_sequences,
    "evaluate: <file>: not a model as train writes it (<reason>); "
    "`dvc repro --force train` makes it anew": training_without("model.safetensors", b"other"),
    "evaluate: <file>: not readable as JSON: <reason>": training_without("run.json", b"{"),
    "evaluate: <file>: <field> is missing; it is damaged, or of another version of this project": (
        training_without("run.json", b"{}")
    ),
    "evaluate: <file>: <field> must be <type>, is <value>; it is damaged, or of another version of "
    "this project": training_without("run.json", b"[]"),
    f"{OWN}no such file; write the name of each class on a line of it, in the order of the "
    f"labels: {SEE}": own_without("classes.txt"),
    f"{OWN}not UTF-8 text (<reason> at byte <number>)": own(CLASSES=b"\xff\xfe"),
    f"{OWN}line <number> must have the name of a class, is empty": own(CLASSES=b"cat\n\ndog\n"),
    f"{OWN}line <number> must have a new name, is that of line <number>": own(CLASSES=b"a\na\n"),
    f"{OWN}line <number> must be of printable characters other than < and >, has U+<code>": (
        own(CLASSES=b"cat\ndog\t.\n")
    ),
    f"{OWN}must name 2 to 256 classes, one a line, names <number>": own(CLASSES=b"cat\n"),
    f"{OWN}must name 2 to 256 classes, one a line, has over <number> bytes": (
        own(CLASSES=b"x" * 100_000)
    ),
    f"{OWN}no such file, with .gz or without; a data set of one's own is four files of IDX: "
    f"{SEE}": own_without(datasets.TEST_LABELS),
    f"{OWN}exists with .gz and without; keep one of the two": own_twice,
    f"{OWN}images must have the size of those in <file>, <size>, have <size>": own(
        TEST_IMAGES=idx.encode(np.zeros((300, 9, 12), np.uint8))
    ),
    "preprocess: preprocess.validation_size must leave images to train on: it is <number>, and "
    "fetch.dataset own has <number> training images": too_few_own,
    "preprocess: preprocess.train_size must be at most the <number> images that fetch.dataset own "
    "has left without the validation images, is <number>": too_few_own_to_train,
    "train: params.yaml: train.batch_size must be at most the <number> images there are to train "
    "on, is <number>": too_few_to_train,
    f"{IDX}no such file; `dvc repro` makes it": lambda p: p.run("preprocess"),
    f"{IDX}no such file; `dvc repro fetch` makes it": raw_without(datasets.TRAIN_IMAGES),
    "train: params.yaml: train.processes must be <number>, the number of processes that torchrun "
    "started, is <number>": among_processes,
    "train: params.yaml: train.processes must be 1 on <device>; several processes train on CPUs "
    "or on NVIDIA GPUs": among_processes_on_a_mac,
    "train: another process of this training cannot be reached: <why>": left_by_a_process,
    "train: params.yaml: train.device must be auto or cuda, is <device>: each of the <number> "
    "processes takes a GPU of its own": among_processes_with_gpus("cuda:0", gpus=2),
    "train: params.yaml: train.processes must be at most the number of GPUs here, <number>: each "
    "process takes one": among_processes_with_gpus("auto", gpus=1),
    "train: its <number> processes failed <number> times, as is said above; run it again: it "
    "continues from its last checkpoint": failing_processes(),
    "train: its <number> processes failed <number> times, as is said above, the last time because "
    "<reason>; run it again: it continues from its last checkpoint": failing_processes("why"),
    "train: <file>: no such file; `dvc repro preprocess` makes it": lambda p: p.run("train"),
    "evaluate: <file>: no such file; `dvc repro train` makes it": training_without(
        "model.safetensors"
    ),
    f"{DEVICE}<device>, but torch <version> finds no NVIDIA GPU here; write auto or cpu": device(
        "cuda", gpus=0
    ),
    f"{DEVICE}<device>, but there is only <devices>; write auto or one of these": device(
        "cuda:9", gpus=2
    ),
    f"{DEVICE}mps, but {NO_MAC}; write auto or cpu": device("mps", gpus=0),
    "train: train.precision is bfloat16, but torch <version> has no <implementation> <cell> in "
    "bfloat16 for this device; write auto or float32": without_bfloat16,
    "train: the loss is <number> at step <number>, so the training stops; lower "
    "train.learning_rate, or set train.clip_norm, for example to 0.01": diverging,
    "<stage>: <file>: No space left on device; free some space there and run again": full_disk,
    "<stage>: <folder>: Permission denied; `ls -ld <folder>` shows who owns it": read_only,
    "<stage>: <folder>: File exists": file_for_a_folder,
    "<stage>: <folder>: No locks available: its disk has no locks; move the project to a local "
    "disk": disk_without_locks,
    f"{STORE}<reason>; the training continues, and evaluate will try again": followed,
    f"{STORE}<reason>; evaluate, or `mnist-lstm sync`, adds there later what is missing": (
        partial(followed, at_the_end=True)
    ),
    f"{STORE}<reason>; all results are on disk, and `mnist-lstm sync` adds them there later": (
        evaluated
    ),
    f"mnist-lstm <command>: {STORE}<reason>": commanded,
    f"{STORE}Connection refused; check that the server is running and that its address is "
    "correct": store_at("http://127.0.0.1:9"),
    f"{STORE}the server asks who you are: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD": store_that_refuses(401),
    f"{STORE}the server does not accept these: correct MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD": store_that_refuses(401, "ann:secret@"),
    f"{STORE}<user> has no permission for this; the server's administrator can give the "
    "permission EDIT on the experiment mnist-lstm and on the registered model": (
        store_that_refuses(403, "ann:secret@")
    ),
    "mnist-lstm <command>: MLFLOW_TRACKING_URI: the password in it has a character that an "
    "address cannot have; write %2F for /, %3F for ?, %23 for #, or set MLFLOW_TRACKING_PASSWORD "
    "instead": lambda p: f"mnist-lstm sync: {store_at('http://ann:a/b@127.0.0.1')(p)}",
    f"{STORE}<file>: Permission denied": store_in_a_folder_of_another,
    f"{STORE}<file>: No space left on device; free some space there": full_artifacts,
    f"{STORE}database or disk is full; free some space there": store_that_is_full,
    "mnist-lstm <command>: <folder>: Read-only file system; `ls -ld <folder>` shows who owns it": (
        folder_that_is_read_only
    ),
    "mnist-lstm <command>: <folder>: No locks available: its disk has no locks; move the project "
    "to a local disk": command_on_a_disk_without_locks,
    "mnist-lstm <command>: <file>: File name too long; use a shorter one": name_that_is_too_long,
    f"{STORE}no such table: <table>; move that file elsewhere; a new one is then made": (
        store_without_a_table
    ),
    f"{STORE}database is locked; another process is using it; run the command again when that "
    "process has ended": store_in_use,
    "mnist-lstm <command>: the experiment mnist-lstm was deleted: restored, with its runs": (
        put_right(delete_the_experiment)
    ),
    "mnist-lstm <command>: the project was moved: its artifacts were in <address> before": (
        put_right(move_the_project)
    ),
    f"{STORE}file is not a database; move that file elsewhere; a new one is then made": (
        lambda p: p.store(b"no database" * 100)
    ),
    f"{STORE}unable to open database file; check that the disk has free space and that you "
    "may write there": store_at("sqlite:////"),
    f"{STORE}attempt to write a readonly database; check that the disk has free space and "
    "that you may write there": store_of_another,
    f"{STORE}another version of MLflow made it (<reason>); move it elsewhere; a new one is "
    "then made": (store_of_another_version),
    f"{STORE}this needs the package <package>, which is not installed; install it, or use a "
    "server": (store_at("mysql://me:secret@127.0.0.1:9/mlflow")),
    "mnist-lstm <command>: no run yet: `dvc repro` makes one": commanded_to("runs", results=False),
    "mnist-lstm <command>: <folder>: DVC cannot open the project: <reason>; clone the project "
    "with git, or make a repository of this folder: `git init`": without_git,
    "mnist-lstm <command>: <folder>: DVC cannot open its folder for this project, which another "
    "user may have made (<reason>); give it one of your own: `dvc config --global "
    "core.site_cache_dir ~/.dvc-site`": without_dvcs_folder,
    "mnist-lstm <command>: <folder>: DVC cannot write to <path> (<reason>); clone the project, and "
    "work in the clone": project_of_another,
    "mnist-lstm <command>: git <command>: <reason>": git_refuses,
    "train: git <command>: <reason>": git_refuses_a_training,
    f"{NO_RUN}; did you mean <names>?": no_run_is_meant("drown"),
    f"{NO_RUN}, and no name starts with that; known runs: <names>": no_run_is_meant("x"),
    "'<text>' fits <number> runs: <runs>; write more of the name": no_run_is_meant("dra", others=2),
    f"<run> is recorded, but its results are not here; {FETCH}": no_run_is_meant(
        "e22", committed=True
    ),
    f"the results of the recorded runs (<number>) are not here; {FETCH}": no_run_is_meant(
        "x", committed=True
    ),
    "'<text>' is a run in MLflow (<names>), but its results are not here: its training did not "
    "finish, or they were deleted": (run_that_is_in_mlflow_alone),
    f"{ELSEWHERE}`dvc exp pull <remote> <experiment>` brings them, once they are pushed": (
        run_that_was_made_elsewhere("slow-dew")
    ),
    f"{ELSEWHERE}`git pull` and then `dvc fetch --all-commits --run-cache` bring them, once they "
    "are pushed": run_that_was_made_elsewhere(None),
    f"no result here is called '<text>', and MLflow could not be searched: {STORE}"
    "<reason>": no_run_is_meant("x", uri="http://127.0.0.1:9"),
    "mnist-lstm compare: '<text>' and '<text>' are the same run, <run>": commanded_to(
        "compare", "drawn", "draw"
    ),
    "mnist-lstm runs: --where must be KEY=VALUE, such as train.learning_rate=0.002, is "
    "'<text>'": commanded_to("runs", "--where", "seed"),
    "mnist-lstm runs: <option>: no run has the parameter '<text>'; did you mean <keys>?": (
        commanded_to("runs", "--where", "lerning_rate=0.1")
    ),
    "mnist-lstm runs: <option>: no run has the parameter '<text>'; known names: <keys>": (
        commanded_to("runs", "--sort", "x")
    ),
    "mnist-lstm runs: --sort test would choose a run by the test images, which must only measure "
    "how good the chosen run is; write --sort validation": commanded_to("runs", "--sort", "test"),
    "mnist-lstm runs: none of <number> runs has <conditions>": commanded_to(
        "runs", "--where", "seed=3"
    ),
    "'<text>' fits <number> runs in MLflow: <runs>; write more of the name": (
        lambda p: made_again_from_the_store("drawn", "a" * 32, "b" * 32)(p).partition(": ")[2]
    ),
    "mnist-lstm reproduce: <run> was made outside of git, so its code was not recorded": (
        made_again(commit=None)
    ),
    "mnist-lstm reproduce: <run> was made from commit <commit>, which is not in this repository; "
    "`git fetch REMOTE <commit>` gets it from a repository that has it": made_again(
        commit="c" * 40
    ),
    "mnist-lstm reproduce: <run> was made from changed code, and its patch does not apply to "
    "commit <commit>: <reason>": made_again(patch="no patch"),
    "mnist-lstm reproduce: <run> is a run in MLflow, but has no run.json there or here: its "
    "training did not finish, or it was never evaluated": made_again_from_the_store(
        "dra", "a" * 32
    ),
    "mnist-lstm reproduce: <run> was made from commit '<text>', which is no full hash: somebody "
    "changed its run.json; put the hash back there, or repeat another run": (
        made_again(commit="HEAD")
    ),
    "mnist-lstm reproduce: <file>: cannot be copied to the temporary worktree (<reason>); put that "
    "right and run again": made_again_from_a_link_to_nothing,
    "mnist-lstm reproduce: <run>: its code runs only if somebody at a terminal agrees, or with "
    "--trust-patch; read it first: <places>": patch_of_the_store(),
    "mnist-lstm reproduce: <run>: nobody agreed to its code, so nothing ran": (
        patch_of_the_store("no\n")
    ),
    "mnist-lstm report: <file>: no such file; `dvc repro` makes it": commanded_to("report"),
    "mnist-lstm report: <file>: no such file; `git checkout data/published_curve.csv` restores "
    "it": report_without_the_published_curve,
    "mnist-lstm <command>: the results in the workspace do not belong to one recorded run, so "
    "they are not used: <files> from dvc.lock; `<command>` fixes that": results_of_several_runs(
        "report"
    ),
    "mnist-lstm predict: there is no champion, and the results in the workspace do not belong to "
    "one recorded run, so they are not used: <files> from dvc.lock; `<command>` fixes that": (
        results_of_several_runs("predict", "picture.png")
    ),
    "mnist-lstm <command>: left out: <file>: has the marks of an unresolved merge; mend it": (
        left_out(in_the_middle_of_a_merge)
    ),
    "mnist-lstm <command>: left out: <file>: damaged: its MD5 is not the one in its name; "
    "delete it": left_out(truncated_in_the_cache),
    "mnist-lstm <command>: left out: <file>: <reason>; it is damaged, or of another version of "
    "this project": left_out(of_another_version),
    "mnist-lstm <command>: <name>: left out: <file>: not a model as train writes it (<reason>); "
    "`dvc repro --force train` makes it anew": model_that_is_none,
    "mnist-lstm report: results/evaluate is not the evaluation of the training in results/train; "
    "`dvc repro` makes it": evaluation_of_another,
    "evaluate: <file>: not what dvc.lock has of the stage train, so it may be of another run; "
    "`dvc repro` without --single-item puts it right": evaluated_beside_another,
    "mnist-lstm <command>: <file>: <reason>; name another file with --out": (
        page_that_cannot_be_written
    ),
    "mnist-lstm seeds: -S must be KEY=VALUE, such as train.steps=100, is '<text>'": commanded_to(
        "seeds", "2", "-S", "steps"
    ),
    "mnist-lstm seeds: -S <key> must be a whole number, is <value>": commanded_to(
        "seeds", "2", "-S", "train.steps=1e3"
    ),
    "mnist-lstm seeds: -S seed: each training has a seed of its own; --from K sets the first one": (
        commanded_to("seeds", "2", "-S", "seed=7")
    ),
    "mnist-lstm seeds: seed <number>: `dvc exp run` ended with exit code <code>; fix what it "
    "reports above, then repeat the command: it continues with this seed": a_seed_without_stages,
    "mnist-lstm seeds: experiment <name> has no whole results here; `dvc exp pull REMOTE <name>` "
    "brings those that a DVC remote has; else `dvc exp remove <name>`, and repeat the command": (
        a_seed_without_results
    ),
    "mnist-lstm seeds: experiment <name> was trained with <parameters>, which its recipe does not "
    "have; `dvc exp remove <name>`, and repeat the command": a_seed_with_other_parameters,
    "mnist-lstm seeds: experiment <name>: the code was edited meanwhile; repeat the command, which "
    "then begins with the present code, or undo the edit first": a_seed_whose_code_is_edited,
    "mnist-lstm seeds: DVC can make no experiment of this kind in <folder>, because the path has "
    "letters beyond ASCII; move the project to another folder": a_seed_in_a_folder_beyond_ascii,
    "mnist-lstm sync: <file>: line <number> is no decision of `promote`": a_damaged_decision,
    "mnist-lstm sync: <run>: the registry lacks its promotion of <time>; its results are not "
    "here": a_former_champion_without_results,
    "mnist-lstm sync: <run>: it is the champion by git, and champion in MLflow is another, or "
    "none; its results are not here": a_champion_without_results,
    "mnist-lstm compare: '<text>' is no recipe; compare recipes with recipes only": (
        commanded_to("compare", "params.yaml", "drawn")
    ),
    "mnist-lstm compare: '<text>' is named twice": (
        commanded_to("compare", "params.yaml", "params.yaml")
    ),
    "mnist-lstm compare: '<text>' and '<text>' are the same recipe": (
        commanded_to("compare", "params.yaml", "./params.yaml")
    ),
    "mnist-lstm compare: --out is for the picture of runs, and recipes have none; leave it out": (
        recipes_with_a_picture
    ),
    "mnist-lstm compare: no recipe here is called '<text>'; with seeds there are: <names>": (
        commanded_to("compare", "seeds of quik", "params.yaml")
    ),
    "mnist-lstm compare: <recipe>: two seeds are needed, and this project has <number>: "
    "`mnist-lstm seeds 5 <recipe>`": recipes_without_seeds,
    "mnist-lstm compare: the recipes are for different data sets: <names>": (
        recipes_of_two_data_sets
    ),
    "mnist-lstm seeds: MLflow store <address>: <reason>; `mnist-lstm sync` adds the parent run "
    "later": parents_without_a_store,
    "mnist-lstm verify: left out: <folder>: no search (<reason>)": records_of_no_search,
    "mnist-lstm search: the storage <address>: <reason>": storage("sqlite:////dev/null/optuna"),
    "mnist-lstm search: the storage <address>: psycopg is not installed; `make env EXTRAS=team` "
    "installs it": storage("postgresql+psycopg://ann:secret@localhost/optuna"),
    "mnist-lstm search: the storage <address>: not the address of a database, such as "
    "postgresql://host/optuna": storage("optuna"),
    "mnist-lstm search: <file>: <key> must be a list of values, or have low and high, and "
    "log: true or a step": space("model.hidden_size: 16"),
    "mnist-lstm search: <file>: <key> cannot be tried: it changes no training, or it changes the "
    "images by which trials are compared": space("preprocess.split_seed: [1, 2]"),
    "mnist-lstm search: -S <key>: <file> tries this key; take it out there, or leave -S out": space(
        "model.hidden_size: [16, 32]", "-S", "model.hidden_size=64"
    ),
    "mnist-lstm search: trial <number>: `dvc exp run` ended with exit code <code>; fix what it "
    "reports above, then repeat the command: it continues with this trial": a_trial_without_stages,
    "mnist-lstm promote: name a RUN or write --rollback; `mnist-lstm runs` lists the runs": (
        commanded_to("promote")
    ),
    "mnist-lstm promote: --because is empty; write the reason: it is recorded": commanded_to(
        "promote", "drawn", "--because", " "
    ),
    'mnist-lstm promote: --force needs a reason, and records it: --because "…"': commanded_to(
        "promote", "drawn", "--force"
    ),
    "mnist-lstm promote: --rollback needs no --force; leave --force out": commanded_to(
        "promote", "--rollback", "--force"
    ),
    "mnist-lstm promote: <run> has not been evaluated; run `dvc repro` in the workspace that has "
    "it; `mnist-lstm runs` shows the state of each run": commanded_to("promote", "drawn"),
    "mnist-lstm promote: <run> is version <number> of row-lstm, but not the champion: <reason>; "
    'to promote it anyway: --force --because "…"': worse_than_the_champion(),
    "mnist-lstm promote: <run> would not be promoted: <reason>; to promote it anyway: "
    '--force --because "…"': worse_than_the_champion("--dry-run"),
    "mnist-lstm promote: by champions.jsonl, <run> is the champion, but not in MLflow's registry: "
    "`mnist-lstm sync` restores it there; if its results are lost, promote a run with --force "
    '--because "…"': behind_git,
    "mnist-lstm promote: there was no champion to go back to": nothing_to_go_back_to,
    "mnist-lstm promote: there was no champion before <run>, version <number> of row-lstm, to go "
    "back to": first_champion_taken_back,
    "mnist-lstm promote: the champion has changed meanwhile: it is <run>, version <number>, "
    "promoted by <user> on <host>; repeat the command": another_champion_meanwhile,
    "mnist-lstm promote: the champion has changed meanwhile: it is <run>, by a "
    "<promotion or return> that was interrupted; repeat the command": interrupted_meanwhile,
    "mnist-lstm promote: the server takes too long to change the champion; try again": slow_server,
    "mnist-lstm promote: row-lstm version <number>: its tag <tag> must be a number as `mnist-lstm "
    "promote` writes it, is '<text>'; correct it in MLflow": changed_tag(
        lambda client: client.set_model_version_tag("row-lstm", "1", "validation_images", "1,000")
    ),
    "mnist-lstm promote: row-lstm: its tag champions_before must be a list of version numbers, "
    'such as ["1", "2"], the latest last; correct it in MLflow, or delete it there': changed_tag(
        lambda client: client.set_registered_model_tag("row-lstm", registry.BEFORE, "1")
    ),
    "make serve: there is no champion yet; `mnist-lstm promote RUN` makes a run the champion": (
        served
    ),
    **{
        f"make serve: version <number> of row-lstm, of <run>: {what}, and its results are not "
        "here; get them from whoever made it, or promote another run": served_from_the_store(damage)
        for what, damage in {
            "its run is not in MLflow": without_its_run,
            "its run has no run.json in MLflow": without_its_record,
            "its model in MLflow is not the one that was registered": with_other_weights,
            "its run.json in MLflow is not of its model (<reason>)": with_other_sizes,
        }.items()
    },
    "make serve: version <number> of row-lstm, of <run>: its model in MLflow is damaged "
    "(<reason>); get its results from whoever made it, or promote another run": (
        served_from_the_store(with_a_damaged_model)
    ),
    "mnist-lstm draw: no examples: the test images are not here; `dvc repro preprocess` makes "
    "them": page_of(),
    "mnist-lstm draw: no examples: the test images here are not of the model's data set and size": (
        page_beside_other_images
    ),
    "mnist-lstm draw: the page has no <part>, which the model has; name another model with --run "
    "or --model": page_of(change=with_other_pooling, code=2),
    "mnist-lstm draw: the model has no <part>, of which the page makes an LSTM; name another model "
    "with --run or --model": page_of(change=without_a_window, code=2),
    "mnist-lstm draw: the model's weights do not fit 16 bits; leave --float16 out": page_of(
        "--float16", change=with_huge_weights, code=2
    ),
    "mnist-lstm draw: <file>: <reason>; name another file with --out": page_of(
        "--out", "model.safetensors/draw.html", code=2
    ),
    "mnist-lstm draw: there is no browser to open it here": page_of("--open"),
    "mnist-lstm export: no examples, and no means to compare with: the test images are not here; "
    "`dvc repro preprocess` makes them": exported("served", code=0),
    "mnist-lstm export: no page to draw in: <reason>": exported_without_a_page,
    "mnist-lstm export: <folder>: <reason>; name another folder with --out": exported(
        "model.safetensors/served", code=2
    ),
    "serve: <file>: <reason>; `mnist-lstm export` makes such a folder": served_from(shutil.rmtree),
    "serve: <file>: not the model that about.json names; `mnist-lstm export` makes such a folder": (
        served_from(lambda folder: small_model(hidden_size=4).save(folder / "model.safetensors"))
    ),
    "serve: <file>: damaged (<reason>); `mnist-lstm export` makes such a folder": served_from(
        lambda folder: (folder / "about.json").write_text("{}")
    ),
    "serve: a host has a name such as digits.example.org, without a port, not <text>": served_from(
        lambda folder: None, "digits.example.org:5001"
    ),
    f"{PICTURE}no such file or folder": predicted(lambda path: None),
    f"{PREDICT}<folder>: no PNG or JPEG files in this folder (its subfolders aside)": predicted(
        Path.mkdir
    ),
    f"{PICTURE}not a PNG or JPEG image": predicted(lambda path: path.write_text("no picture")),
    f"{PICTURE}damaged (<reason>)": predicted(cut),
    f"{PICTURE}Permission denied": picture_of_another,
    f"{PICTURE}has more than <number> pixels; make it smaller": predicted(
        lambda path: claim(path, 10_001, 10_000)
    ),
    f"{PICTURE}has a side of more than <number> pixels; make it smaller": predicted(
        lambda path: claim(path, 70_000, 1)
    ),
    f"{PICTURE}there is too little memory for it; make it smaller": picture_without_memory,
    f"{PICTURE}<number> large things are on it, and the largest is read": predicted(
        grey(on_page(np.hstack([np.ones((60, 10)), np.zeros((60, 60)), np.ones((60, 10))]))), code=0
    ),
    f"{PICTURE}what is left is a filled shape, unlike a digit": predicted(
        grey(on_page(np.ones((60, 50)))), code=0
    ),
    f"{PICTURE}what is left is unlike one digit": predicted(
        grey(on_page(np.ones((20, 90)))), code=0
    ),
    f"{PICTURE}blank: all of it is of about the same grey": predicted(grey(np.full((9, 9), 200))),
    f"{PICTURE}too little contrast: what is on it stands out by <number> of 255 grey levels, and "
    "<number> are needed": predicted(grey(100 + GLYPH / 32)),
    f"{PREDICT}there is no champion and no file <file>: name a run with --run, or `dvc repro`": (
        predicted_without_the_workspaces_model
    ),
    f"{PREDICT}there is no champion and no file <file>: no run yet: `dvc repro` makes one": (
        commanded_to("predict", "picture.png", results=False)
    ),
    f"{PREDICT}<file>: not UTF-8 text (<reason> at byte <number>); `dvc repro fetch` makes it "
    "again": predicted_with_class_names_that_are_no_text,
    f"{PREDICT}the champion, version <number>, was made by <user> on <host>, and its results are "
    "not here: <commands>, once they are pushed": champion_that_was_made_elsewhere,
    f"{PREDICT}the weights of the champion, version <number>, are not here (SHA-256 <start>…): "
    "`dvc fetch --all-commits --run-cache` downloads what a DVC remote has; or name a model with "
    "--run or --model": champion_without_results,
    f"{PICTURE}no such file; --model takes a model.safetensors that train wrote": commanded_to(
        "predict", "picture.png", "--model", "none.safetensors"
    ),
    f"{PICTURE}not a model as train writes it (<reason>); `dvc repro --force train` makes it "
    "anew": commanded_to("predict", "picture.png", "--model", "params.yaml"),
    f"{PICTURE}<reason>; name another folder with --show": predicted(
        grey(GLYPH), "--show", "params.yaml/seen", code=2
    ),
    "<stage>: changed while the stage ran: <what>; the results are not kept, because DVC would "
    "record them as made from the new state; run again, or undo the change first": (
        changed_meanwhile
    ),
    "<stage>: the package mnist_lstm comes from <folder>, not from <folder>: another project's "
    "code would run; run `python src/…`, without PYTHONSAFEPATH": foreign_package,
    "<stage>: <folder>: no dvc.yaml here; run this in the project's folder": elsewhere,
    "mnist-lstm <command>: <folder>: no dvc.yaml here or above; run this inside the project": (
        commanded_elsewhere
    ),
    "mnist-lstm <command>: the current folder was deleted; change into the project's": (
        commanded_in_a_deleted_folder
    ),
    "ModuleNotFoundError: No module named '<package>'": bare_python,
    "make env: found no Python 3.11 or newer; install one, or name one: "
    "make env PYTHON=/its/path": env_without_python,
    "make env: PYTHON=<program> is not Python 3.11 or newer; name one that is, or leave it out": (
        partial(make_env, PYTHON="/bin/false")
    ),
    "make env: TORCH=<text> is neither cpu nor cuda; leave it out to choose by the machine": (
        partial(make_env, TORCH="gpu")
    ),
    "make env: another make is at work on .venv (process <number>); wait until it has finished, or "
    "delete .venv/making if process <number> is no make": (another_make),
    "make env: EXTRAS=<text> is neither team nor server; leave it out to keep what is installed": (
        partial(make_env, EXTRAS="tests")
    ),
    "make ui: cannot use port <number>; take another: make ui PORT=5001": port_in_use,
    "make server: cannot use port <number> of <address>; take another: make server PORT=5003": (
        partial(port_in_use, target="server", script="mlflow_server")
    ),
    "make server: this needs <package>; `make env EXTRAS=server` installs it": (
        server_without_a_package
    ),
    'make server: this needs <package>; `make env EXTRAS="team server"` installs it': (
        server_where_team_is_installed
    ),
    "make server: LOGIN=1 needs a password for the user admin, at its first start; set "
    "MLFLOW_AUTH_ADMIN_PASSWORD to <number> characters or more": server_without_a_password,
    "make serve: cannot use port <number>; take another: make serve PORT=5002": partial(
        port_in_use, target="serve"
    ),
    "make serve: SERVE_HOSTS: a host has a name such as digits.example.org, without a port, not "
    "<text>": served_under_a_wrong_name,
}


@pytest.mark.parametrize("line", MET, ids=lambda line: line[:70])
def test_the_message_is_the_documented_one(project: Project, line: str) -> None:
    met = MET[line](project)
    assert is_the_line(line, met), met
    assert "secret" not in met


def test_errors_md_has_exactly_these_messages() -> None:
    elsewhere = ("Messages of DVC", "Stopping and continuing")  # tested in tests/pipeline
    lines = [line for part, its in catalogue().items() if part not in elsewhere for line in its]
    assert sorted(lines) == sorted(MET)
