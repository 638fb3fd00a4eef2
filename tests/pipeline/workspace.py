"""A temporary repository with the project's code, driven with real dvc and git."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import yaml
import zygote
from samples import PROJECT

from mnist_lstm.tracking.store import open_store

# recipes/quick.yaml, made as small as the tests allow
SMALL = {
    "preprocess": {"validation_size": 237},
    "model": {"hidden_size": 32, "dropout": 0.5},
    "train": {"steps": 20, "eval_every": 10, "batch_size": 32},
}

# what is its user's alone in a project made from the template
USERS = re.compile(r"dvc\.lock|champions\.jsonl|results/.*|data/own/(?!README\.md$).*")

TRIES = 5  # of `dvc queue start`, which failed once beside a worker at work


@dataclass(frozen=True)
class Workspace:
    """A folder with the project in it."""

    folder: Path

    @staticmethod
    def create(folder: Path) -> "Workspace":
        """The project as it is in the working tree, on a small recipe, without results."""
        names = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(["git", *names], cwd=PROJECT, check=True, capture_output=True)
        for name in listed.stdout.decode().split("\0")[:-1]:
            source = PROJECT / name
            if source.is_file() and not USERS.fullmatch(name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
        workspace = Workspace(folder)
        shutil.copy(PROJECT / "recipes" / "quick.yaml", folder / "params.yaml")
        for section, values in SMALL.items():
            for key, value in values.items():
                workspace.set(f"{section}.{key}", value)
        workspace.git("init", "--quiet", "--initial-branch=main")
        workspace.name_author()
        workspace.commit("the project")
        return workspace

    def clone(self, folder: Path) -> "Workspace":
        """Clone it as a stranger would: without cache and MLflow store."""
        self.git("clone", "--quiet", str(self.folder), str(folder))
        clone = Workspace(folder)
        clone.name_author()
        return clone

    def copy(self, folder: Path) -> "Workspace":
        """Copy all of it, with cache, results and MLflow store, into another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder)

    def name_author(self) -> None:
        self.git("config", "user.name", "A. Tester")
        self.git("config", "user.email", "tester@example.org")

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    def dvc(self, *arguments: str, **environment: str) -> str:
        """Run dvc, which must succeed; returns what it and the stages print."""
        return self._succeed("dvc", *arguments, **environment)

    def command(self, *arguments: str) -> str:
        """Run mnist-lstm, which must succeed; returns what it prints."""
        return self._succeed("mnist-lstm", *arguments)

    def _succeed(self, program: str, *arguments: str, **environment: str) -> str:
        done = self.start_warm(program, *arguments, **environment)
        printed, _ = done.communicate()
        assert done.returncode == 0, printed
        return printed

    def run_the_sweep(self, *, warm: bool = True) -> None:
        """Queue the sweep of docs/runs.md, with suitable values, and run all four at once.

        With warm imports, the first one starts alone, until its fetch and preprocess are in DVC's
        run cache: otherwise all would save the same result of fetch in the same millisecond, and
        DVC deletes entries of the run cache that another process has half written.
        """
        values = ("model.hidden_size=32,48", "train.learning_rate=0.005,0.01")
        self.dvc("exp", "run", "--queue", *(word for one in values for word in ("-S", one)))
        start = self.start_warm if warm else self.start
        deadline = time.monotonic() + 1000
        for jobs in range(1, 5) if warm else (4,):
            for _ in range(TRIES):
                printed = _failed(start("dvc", "queue", "start", "--jobs", str(jobs)))
                if not printed:
                    break
                warnings.warn(f"dvc queue start failed: {printed}", stacklevel=1)
            assert not printed
            while warm and jobs == 1 and len(self.run_cache()) < 2:
                assert time.monotonic() < deadline, self.dvc("queue", "status")
                time.sleep(0.1)
        while "Running" in (status := self.dvc("queue", "status")) or "Queued" in status:
            assert time.monotonic() < deadline, status
            until = time.monotonic() + 20  # asking dvc takes a second of the processor
            while time.monotonic() < until and len(self.experiments()) < 4:
                time.sleep(0.5)
        # a worker that met a half-written file of DVC's would stay idle for ever
        self.dvc("queue", "stop")
        assert status.count("Success") == 4, status

    def run_cache(self) -> list[Path]:
        """The complete entries of DVC's run cache."""
        entries = (self.folder / ".dvc" / "cache" / "runs").glob("*/*/*")
        return [path for path in entries if not path.name.startswith(".")]

    def experiments(self) -> list[str]:
        """The git references of DVC's experiments."""
        return self.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/*").split()

    def refused(self, *arguments: str) -> str:
        """Run dvc, which must fail without a traceback; returns what it and the stages print."""
        done = self.start_warm("dvc", *arguments)
        printed, _ = done.communicate()
        assert done.returncode != 0, printed
        assert "Traceback" not in printed
        return printed

    def start(self, program: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a program as a user does, for example to send it signals."""
        return self._start(Path(sys.executable).parent, program, *arguments, **environment)

    def start_warm(
        self, program: str, *arguments: str, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start a program in a way that it and its child processes need no time for imports."""
        return self._start(zygote.folder_of_programs(), program, *arguments, **environment)

    def _start(
        self, programs: Path, program: str, *arguments: str, **environment: str
    ) -> "subprocess.Popen[str]":
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MNIST_MIRROR")}
        folders = (str(programs), str(Path(sys.executable).parent), kept["PATH"])
        return subprocess.Popen(
            [programs / program, *arguments],
            cwd=self.folder,
            env=kept
            | {
                "PATH": os.pathsep.join(folders),
                "PYTHONUNBUFFERED": "1",
                "OMP_NUM_THREADS": "1",
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, to be killed as one
        )

    def set(self, key: str, value: object) -> None:
        """Edit params.yaml as a person would: only the value."""
        section, name = key.split(".") if "." in key else ("", key)
        path = self.folder / "params.yaml"
        head = rf"^{section}:\n(?:  .*\n)*?  " if section else "^"
        text, count = re.subn(
            rf"({head}{name}: +)\S+", rf"\g<1>{value}", path.read_text(), flags=re.MULTILINE
        )
        assert count == 1, key
        path.write_text(text)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def lock(self) -> Any:
        return yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"]

    def results(self) -> dict[str, bytes]:
        """The files of results/, by name."""
        files = (self.folder / "results").rglob("*.*")
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if path.name != ".gitignore"
        }

    def groups(self) -> dict[str, Any]:
        """The parent runs in the MLflow store, by name, each with all that people see of it."""
        store, every = open_store(self.folder), self.runs()
        found = {}
        for run in every:
            run_id, tags = run.info.run_id, run.data.tags
            if "group" in tags:
                curves = {
                    key: [(m.step, m.value, m.timestamp) for m in history]
                    for key in run.data.metrics
                    if (history := store.client.get_metric_history(run_id, key))
                }
                found[run.info.run_name] = {
                    "params": run.data.params,
                    "tags": tags,
                    "metrics": curves,
                    "files": {file.path for file in store.client.list_artifacts(run_id)},
                    "times": (run.info.start_time, run.info.end_time, run.info.status),
                    "children": {
                        each.data.tags["name"]
                        for each in every
                        if each.data.tags.get("mlflow.parentRunId") == run_id
                    },
                }
        return found

    def without_store(self, folder: Path) -> "Workspace":
        """A copy without MLflow store. In the same folder, MLflow would keep the lost one open."""
        copy = self.copy(folder)
        (copy.folder / "mlflow.db").unlink()
        shutil.rmtree(copy.folder / "mlruns")
        return copy

    def runs(self) -> list[mlflow.entities.Run]:
        """The runs in the workspace's own MLflow store."""
        store = open_store(self.folder)
        return list(store.client.search_runs([store.experiment_id], order_by=["start_time"]))


def pasted(line: str) -> str:
    """Run a line of the docs in a shell here, in the tests' environment; returns its output."""
    return subprocess.run(
        ["bash", "-c", line],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _failed(process: "subprocess.Popen[str]") -> str:
    """What a process printed that has failed; nothing if it has not.

    It does not wait for the end of the output, since the workers that it started hold it open.
    """
    assert process.stdout
    with process.stdout as output:
        if process.wait() == 0:
            return ""
        os.set_blocking(output.fileno(), False)
        printed = b""
        with contextlib.suppress(BlockingIOError):  # it has printed nothing
            printed = os.read(output.fileno(), 2**16)
        return printed.decode() or f"exit code {process.returncode}"


def stages_run(printed: str) -> list[str]:
    """The stages whose commands ran, from what `dvc repro` printed."""
    return re.findall(r"(?m)^Running stage '(\w+)'", printed)
