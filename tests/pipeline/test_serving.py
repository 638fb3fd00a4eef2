"""Loading and serving the model from MLflow unpickles nothing."""

import io
import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow.exceptions import MlflowException
from workspace import Workspace

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


def test_only_the_example_in_the_logged_model_is_pickled(model: Path) -> None:
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
