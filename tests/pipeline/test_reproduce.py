"""`mnist-lstm reproduce`: runs are really trained again, in a scratch worktree."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from workspace import Workspace

from mnist_lstm.scratch import scratch

SCRATCH = "mnist-lstm-reproduce-*"  # torch leaves an empty folder of its own beside them
DEFAULT = {"ATEN_CPU_CAPABILITY": "default"}  # torch's kernels without AVX and the like


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def reproduce(
    workspace: Workspace, *arguments: str, code: int = 0, **environment: str
) -> dict[str, Any]:
    """Make a run again, which must end with that exit code; what it tells."""
    before, stores = workspace.git("status", "--porcelain"), made_here(workspace)
    done = workspace.start("mnist-lstm", "reproduce", "--json", *arguments, **environment)
    printed, _ = done.communicate()
    assert done.returncode == code, printed
    assert nothing_is_left(workspace)
    assert (workspace.git("status", "--porcelain"), made_here(workspace)) == (before, stores)
    told: dict[str, Any] = json.loads(printed)
    return told


def made_here(workspace: Workspace) -> set[Path]:
    """What a pipeline that runs in the project itself would add to."""
    folders = (".checkpoints", "mlruns", ".dvc/cache", "data", "results")
    return {path for name in folders for path in (workspace.folder / name).rglob("*")}


def nothing_is_left(workspace: Workspace) -> bool:
    return workspace.git("worktree", "list", "--porcelain").count("worktree ") == 1


def test_a_run_whose_results_are_gone_comes_again_from_the_store(
    workspace: Workspace, baseline: Workspace, temporary: Path
) -> None:
    about = baseline.json("results/train/run.json")
    shutil.rmtree(workspace.folder / ".dvc" / "cache")
    for path in (workspace.folder / "results").rglob("*.*"):
        path.unlink()
    printed, _ = workspace.start("mnist-lstm", "reproduce", about["name"]).communicate()
    assert "no run's results are here, and 1 are recorded" in printed  # there is no store yet

    for name in ("mlruns", "mlflow.db"):  # artifacts have the addresses of the baseline's folder
        copy = shutil.copytree if (baseline.folder / name).is_dir() else shutil.copy
        copy(baseline.folder / name, workspace.folder / name)
    workspace.set("train.steps", 7)  # params.yaml is somebody's work, and not what is to be run
    told = reproduce(workspace, about["training_id"][:6])
    assert (told["outcome"], told["reasons"]) == ("identical", [])
    assert told["now"]["model_sha256"] == about["model_sha256"]
    assert told["now"]["metrics"] == baseline.json("results/evaluate/metrics.json")
    assert list(temporary.glob(SCRATCH)) == []


def test_one_made_by_the_queue_comes_again(sweep: Workspace, temporary: Path) -> None:
    runs = json.loads(sweep.command("runs", "--json", "--where", "hidden_size=48"))
    process = sweep.start("mnist-lstm", "reproduce", runs[0]["experiments"][0], "--keep")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert "Iter0, step 20, train-test " in printed  # it was trained, not looked up
    assert "git add" not in printed
    assert f"{runs[0]['name']}: reproduced: the weights are the same, bit for bit\n" in printed
    (folder,) = temporary.glob(SCRATCH)
    assert f"kept: {folder / 'code'} (" in printed
    assert "hidden_size: 48" in (folder / "code" / "params.yaml").read_text()
    with scratch(sweep.folder):
        pass
    assert folder.is_dir()  # what is kept is not cleaned up
    sweep.git("worktree", "remove", "--force", str(folder / "code"))


def test_changed_code_is_restored_and_another_processor_is_named(
    workspace: Workspace, temporary: Path
) -> None:
    model = workspace.folder / "src" / "mnist_lstm" / "model.py"
    changed = model.read_text().replace(
        "nn.init.constant_(self.head.bias, 0.1)", "nn.init.constant_(self.head.bias, START)"
    )
    model.write_text(
        changed.replace("import UserError", "import UserError\nfrom mnist_lstm.start import START")
    )
    (model.parent / "start.py").write_text("START = 0.25\n")  # a file that git does not know
    workspace.dvc("repro", **DEFAULT)
    about = workspace.json("results/train/run.json")
    assert about["dirty"]
    workspace.git("checkout", "--", "src")
    (model.parent / "start.py").unlink()

    told = reproduce(workspace, about["name"], **DEFAULT)
    assert (told["outcome"], told["reasons"], told["dirty"]) == ("identical", [], True)
    assert told["now"]["model_sha256"] == about["model_sha256"]

    if about["device"] == f"cpu {torch.backends.cpu.get_cpu_capability()}":
        pytest.skip("this processor has no kernels of its own")
    told = reproduce(workspace, about["name"], "--tolerance", "1", code=1)
    assert told["outcome"] == "close"
    (reason,) = told["reasons"]
    assert reason == f"device: {about['device']} then, {told['now']['device']} now"
    assert told["now"]["model_sha256"] != about["model_sha256"]
    assert list(temporary.glob(SCRATCH)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_stopped_leaves_nothing(
    workspace: Workspace, temporary: Path, number: signal.Signals
) -> None:
    with workspace.start("mnist-lstm", "reproduce", "digits") as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Running stage 'preprocess'"):
                break
        assert not nothing_is_left(workspace)
        process.send_signal(number)
        printed = process.stdout.read()
    if number == signal.SIGKILL:
        assert not nothing_is_left(workspace)
        deadline = time.monotonic() + 120  # until its dvc has noticed, it is at work there
        while not nothing_is_left(workspace):
            assert time.monotonic() < deadline
            time.sleep(1)
            with scratch(workspace.folder):  # as the next one begins
                pass
    else:
        assert process.returncode == 130
        said = "mnist-lstm reproduce: stopped; the scratch worktree is gone, and nothing here has "
        assert printed.endswith(f"{said}changed\n")
    assert nothing_is_left(workspace)
    assert list(temporary.glob(SCRATCH)) == []
    at_work = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True)
    assert str(temporary) not in at_work.stdout
