"""The model in MLflow holds no pickle that loading it unpickles; servers are for this machine."""

import io
import json
import os
import pickle
import pickletools
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import torch
from mlflow.exceptions import MlflowException
from workspace import Workspace

from mnist_lstm.model import Classifier, RowLSTM
from mnist_lstm.sequences import Sequences
from mnist_lstm.tracking.store import open_store

EXAMPLE = "model/data/sample_inputs/model.pt"


@pytest.fixture
def model(baseline: Workspace, tmp_path: Path) -> Path:
    """A copy of the model that evaluate logged."""
    (run,) = baseline.runs()
    (output,) = run.outputs.model_outputs
    logged = open_store(baseline.folder).client.get_logged_model(output.model_id)
    place = logged.artifact_location
    return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(tmp_path)))


def test_what_is_pickled_in_the_logged_model_is_its_example_alone(model: Path) -> None:
    files = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    program = "data/model.pt2"
    for name in files - {program}:
        (model / name).read_text(encoding="utf-8")
    with zipfile.ZipFile(model / program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        payloads = json.loads(content)["config"] if name.endswith("_config.json") else {}
        assert not any(payload["use_pickle"] for payload in payloads.values())
    pickled = {name for name, content in members.items() if zipfile.is_zipfile(io.BytesIO(content))}
    assert pickled == {EXAMPLE}
    plain = members.keys() - pickled
    assert {name for name in plain if "/weights/weight_" not in name} == {
        f"model/{name}"
        for name in (
            *("archive_format", "archive_version", "byteorder", "models/model.json"),
            *(".data/version", ".data/serialization_id"),
            *(
                "data/weights/model_weights_config.json",
                "data/constants/model_constants_config.json",
            ),
        )
    }
    with zipfile.ZipFile(io.BytesIO(members[EXAMPLE])) as example:
        stream = example.read("archive/data.pkl")
    named = {arg for code, arg, _ in pickletools.genops(stream) if code.name == "GLOBAL"}
    assert named == {
        "torch._utils _rebuild_tensor_v2",
        "torch ByteStorage",
        "collections OrderedDict",
    }
    assert not any(code.name == "STACK_GLOBAL" for code, _, _ in pickletools.genops(stream))


class Executes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_forged_example_is_refused_and_not_unpickled(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    forged, executed = io.BytesIO(), tmp_path / "executed"
    torch.save((Executes(executed),), forged)
    torch.load(io.BytesIO(forged.getvalue()), weights_only=False)
    executed.unlink()  # it does execute, where it is unpickled
    program = model / "data" / "model.pt2"
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(program, "w") as archive:
        for name, content in (members | {EXAMPLE: forged.getvalue()}).items():
            archive.writestr(name, content)
    with pytest.raises(MlflowException, match="is not a pickle-free payload"):
        mlflow.pyfunc.load_model(str(model))
    assert not executed.exists()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def server(
    *command: str | Path, folder: Path, health: str, **environment: str
) -> Iterator[psutil.Process]:
    """A server's process, once it answers; killed with its children in the end."""
    log = folder / "server.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not answers(health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def listens_on(process: psutil.Process) -> set[str]:
    """The addresses that a process and its children take connections on."""
    return {
        connection.laddr.ip
        for one in (process, *process.children(recursive=True))
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_make_ui_listens_on_this_machine_alone(clone: Workspace, baseline: Workspace) -> None:
    shutil.copy(baseline.folder / "mlflow.db", clone.folder)  # to make one takes seconds
    (clone.folder / "scripts" / "env.sh").write_text("")  # the environment is the one of the tests
    (clone.folder / ".venv" / "bin").mkdir(parents=True)
    (clone.folder / ".venv" / "bin" / "activate").touch()
    url = f"http://127.0.0.1:{(port := free_port())}"
    make = ("make", "--silent", "ui", f"PORT={port}")
    with server(*make, folder=clone.folder, health=f"{url}/health") as process:
        assert listens_on(process) == {"127.0.0.1"}


# Python raises this event wherever something that is pickled names what is to be called
WATCH = """
import sys
from pathlib import Path
def watch(event, arguments):
    if event == "pickle.find_class":
        with open(UNPICKLED, "a") as file:
            file.write(repr(arguments))
sys.addaudithook(watch)
"""


def test_the_model_is_served_as_ours_and_unpickled_nowhere(
    baseline: Workspace, model: Path, tmp_path: Path
) -> None:
    unpickled = tmp_path / "unpickled"
    (tmp_path / "sitecustomize.py").write_text(WATCH.replace("UNPICKLED", repr(str(unpickled))))
    watched = {"PYTHONPATH": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    control = f"import pickle; pickle.loads({pickle.dumps(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", control], env=os.environ | watched, check=True)
    assert "PosixPath" in unpickled.read_text()
    unpickled.unlink()

    ours = Classifier(RowLSTM.load(baseline.folder / "results" / "train" / "model.safetensors"))
    pixels = Sequences.load(baseline.folder / "data" / "sequences" / "test.safetensors").pixels[:5]
    url = f"http://127.0.0.1:{(port := free_port())}"
    serve = ("mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1")
    serve = (*serve, "--port", str(port), "--model-uri", str(model))
    with server(*serve, folder=tmp_path, health=f"{url}/ping", **watched) as process:
        request = urllib.request.Request(
            f"{url}/invocations",
            json.dumps({"inputs": pixels.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            served = torch.tensor(json.load(response)["predictions"])
        assert listens_on(process) == {"127.0.0.1"}
    with torch.inference_mode():
        torch.testing.assert_close(served, ours.eval()(pixels), rtol=0, atol=1e-6)
    assert not unpickled.exists(), unpickled.read_text()
