"""The day of two people in docs/team.md, as pasted: with PostgreSQL, an S3 store and a server."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zygote
from PIL import Image
from postgres import database
from samples import PROJECT
from servers import free_port, server
from workspace import Workspace, stages_run

from mnist_lstm.data.sequences import Sequences

MOTO = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
NEEDED = {
    "moto_server is not installed: MOTO_SERVER names it": bool(MOTO) and Path(MOTO).is_file(),
    "the extras are not installed: make env EXTRAS='team server'": all(
        importlib.util.find_spec(name) for name in ("dvc_s3", "psycopg", "boto3")
    ),
}
MISSING = [reason for reason, is_there in NEEDED.items() if not is_there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))

TEXT = (PROJECT / "docs" / "team.md").read_text()
# the commands of each part, by its title
PARTS = {
    title: re.findall(r"(?m)^    (.+)", text)
    for title, text in re.findall(r"(?s)\n## (.+?)\n(.*?)(?=\n## |$)", TEXT)
}


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """An S3 store with two buckets; returns its address."""
    folder.mkdir()
    uri = f"http://127.0.0.1:{(port := free_port())}"
    assert MOTO
    with server(MOTO, "-H", "127.0.0.1", "-p", str(port), folder=folder, health=f"{uri}/moto-api/"):
        for bucket in ("digits", "mlflow"):
            request = urllib.request.Request(f"{uri}/{bucket}", method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
        yield uri


@dataclass
class Person:
    """Somebody with a folder, in which shells run what a part of the page says."""

    name: str
    folder: Path
    replaced: dict[str, str]
    environment: dict[str, str]

    def does(self, part: str, first: int = 0, last: int | None = None) -> str:
        """Run commands of a part, in one shell; returns what they print."""
        lines = PARTS[part][first:last]
        script = "set -e\n" + "\n".join(lines)
        for shown, real in self.replaced.items():
            script = script.replace(shown, real)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}"
        return done.stdout


# a clone gets an author, and `make env` does nothing there: the tests' own environment is used
PREPARE = """\
git config user.name Tester
git config user.email tester@example.org
git update-index --skip-worktree scripts/env.sh
: >scripts/env.sh
mkdir -p .venv/bin
: >.venv/bin/activate
"""


def test_the_day_of_two_people(tmp_path: Path) -> None:
    ann = Workspace.create(tmp_path / "ann" / "digits")
    origin = tmp_path / "origin.git"
    ann.git("clone", "--quiet", "--bare", ".", str(origin))
    ann.git("remote", "add", "origin", str(origin))
    ann.git("fetch", "--quiet")
    ann.git("branch", "--set-upstream-to=origin/main")
    subprocess.run(["bash", "-ec", PREPARE], cwd=ann.folder, check=True)
    with database("mlflow") as backend, s3(tmp_path / "s3") as store:
        port = free_port()
        replaced = {
            "http://server:5000": f"http://127.0.0.1:{port}",
            "postgresql://mlflow@database/mlflow": backend,
            "git@example.org:digits.git": str(origin),
            "make server ": f"exec make --silent server PORT={port} ",
            "cd digits": f"cd digits\n{PREPARE}",
        }
        programs = (zygote.folder_of_programs(), Path(sys.executable).parent)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")
        } | {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
            "AWS_ENDPOINT_URL": store,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        }
        a = Person("ann", ann.folder, replaced, environment | {"LOGNAME": "ann"})
        (tmp_path / "bo").mkdir()
        b = Person("bo", tmp_path / "bo", replaced, environment | {"LOGNAME": "bo"})

        (prepare, serve) = PARTS["The server, once"]
        assert prepare == "make env EXTRAS=server"
        for shown, real in replaced.items():
            serve = serve.replace(shown, real)
        question = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name"
        health = f"{question}?experiment_name=Default"
        with server("bash", "-c", serve, folder=ann.folder, health=health, **environment):
            the_day(a, b, tmp_path / "bo" / "digits")


def the_day(a: Person, b: Person, clone: Path) -> None:
    a.does("Ann, once")
    morning = a.does("Ann in the morning")
    assert stages_run(morning) == [
        *("fetch", "preprocess", "train", "evaluate"),
        *("train", "evaluate"),
    ]

    there = b.does("Bo at noon", 0, 6)
    notes = re.findall(r"(?m)^note: \S+: made by ann on .*$", there)
    assert len(notes) == 2
    assert any("`dvc exp pull origin wider` brings them, once" in note for note in notes)
    assert any("`git pull` and then `dvc fetch" in note for note in notes)

    b.folder = clone
    b.environment["MLFLOW_TRACKING_URI"] = b.replaced["http://server:5000"]
    noon = b.does("Bo at noon", 6)
    assert "train-test" not in noon  # as each training prints
    assert stages_run(noon) == []
    assert "agrees with all 2 results" in noon
    assert "wider is the champion now, version 1 of row-lstm" in noon

    a.environment["MLFLOW_TRACKING_URI"] = b.replaced["http://server:5000"]
    image = Sequences.load(a.folder / "data" / "sequences" / "test.safetensors").pixels[0]
    Image.fromarray(image.numpy()).save(a.folder / "digit.png")
    evening = a.does("Ann in the evening")
    assert "agrees with all 2 results" in evening
    assert "model: the champion, version 1, of wider" in evening
