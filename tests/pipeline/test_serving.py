"""The model in MLflow holds no pickle that loading it unpickles; servers are for this machine."""

import io
import json
import os
import pickle
import pickletools
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
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
from samples import PROJECT
from workspace import Workspace

from mnist_lstm.cli import main
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


def test_the_champion_is_served_as_ours_and_unpickled_nowhere(
    baseline: Workspace, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpickled = tmp_path / "unpickled"
    (tmp_path / "sitecustomize.py").write_text(WATCH.replace("UNPICKLED", repr(str(unpickled))))
    watched = {"PYTHONPATH": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    control = f"import pickle; pickle.loads({pickle.dumps(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", control], env=os.environ | watched, check=True)
    assert "PosixPath" in unpickled.read_text()
    unpickled.unlink()

    monkeypatch.chdir(workspace.folder)
    name = baseline.json("results/train/run.json")["name"]
    assert main(["promote", name]) == 0
    ours = Classifier(RowLSTM.load(baseline.folder / "results" / "train" / "model.safetensors"))
    pixels = Sequences.load(baseline.folder / "data" / "sequences" / "test.safetensors").pixels
    many = pixels.repeat(3, 1, 1)[:1000]
    url = f"http://127.0.0.1:{(port := port_of_the_docs())}"
    serve = (sys.executable, "scripts/serve.py", str(port))
    with server(*serve, folder=workspace.folder, health=f"{url}/ping", **watched) as process:
        assert listens_on(process) == {"127.0.0.1"}
        answers = [
            torch.tensor(json.loads(body)["predictions"])
            for images in (pixels[:1], many)
            for status, body in [ask(url, json.dumps({"inputs": images.tolist()}).encode())]
            if status == 200
        ]
        for content, words in REFUSED.items():
            status, said = ask(url, content)
            assert (status, words in json.loads(said)["message"]) == (400, True), said
        status, said = ask(url, b"1,2", "text/csv")
        assert (status, "must be application/json, is text/csv" in said) == (415, True)
        if shutil.which("curl"):
            text = (PROJECT / "docs" / "serving.md").read_text()
            (line,) = re.findall(r"(?m)^    (python .* curl .*)$", text)
            line = line.replace(f":{PORT}/", f":{port}/")  # where another has that port
            pasted = subprocess.run(
                ["bash", "-c", line],
                env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            answers.append(torch.tensor(json.loads(pasted)["predictions"]))
    assert [len(answer) for answer in answers][:2] == [1, 1000]
    ours.eval()
    with torch.inference_mode():
        for images, answer in zip((pixels[:1], many, pixels[:1]), answers, strict=False):
            torch.testing.assert_close(answer, ours(images), rtol=0, atol=1e-6)
    assert not unpickled.exists(), unpickled.read_text()


PORT = 5001
IMAGE = [[0] * 8] * 8  # as digits has them
REFUSED = {
    json.dumps({"inputs": IMAGE}).encode(): "put a single image into brackets",
    json.dumps({"inputs": [IMAGE[1:]]}).encode(): "inputs[0] must have 8 rows; it has 7",
    json.dumps({"inputs": [[*IMAGE[1:], [0.5] * 8]]}).encode(): "[7][0] is 0.5; pixels are",
    json.dumps({"inputs": [[*IMAGE[1:], ["1"] * 8]]}).encode(): 'is the text "1"; pixels are',
    json.dumps({"inputs": [[*IMAGE[1:], [256] * 8]]}).encode(): "is 256; pixels are whole numbers",
    json.dumps({"inputs": [[*IMAGE[1:], [-1] * 8]]}).encode(): "is -1; pixels are whole numbers",
    json.dumps({"inputs": [[*IMAGE[1:], [float("nan")] * 8]]}).encode(): "the body has NaN",
    json.dumps({"inputs": []}).encode(): "it is empty",
    b"": "the body is empty",
    b'{"inputs": [[': "the body is not JSON (line 1, column",
    b"{}": "the JSON must be",
}


def port_of_the_docs() -> int:
    """The one that docs/serving.md names, or another where it is taken."""
    try:
        socket.create_server(("127.0.0.1", PORT)).close()
    except OSError:
        return free_port()
    return PORT


def ask(url: str, content: bytes, kind: str = "application/json") -> tuple[int, str]:
    """What the server answers: the status and the body."""
    request = urllib.request.Request(f"{url}/invocations", content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_make_serve_without_a_champion_is_a_line(clone: Workspace, baseline: Workspace) -> None:
    shutil.copy(baseline.folder / "mlflow.db", clone.folder)
    served = clone.start("python", "scripts/serve.py", str(free_port()))
    printed, _ = served.communicate()
    assert served.returncode == 1
    assert printed.splitlines()[-1] == (
        "make serve: there is no champion yet; `mnist-lstm promote RUN` makes one of a run"
    )
