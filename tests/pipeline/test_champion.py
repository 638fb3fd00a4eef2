"""A tour: run variants through the queue; promote, use, serve and reproduce the best one."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from remade import SCRATCH, reproduce
from samples import PROJECT
from servers import REFUSED, ask, free_port, listens_on, make, server
from torch import Tensor
from workspace import Workspace, pasted, stages_run

from mnist_lstm.cli import main
from mnist_lstm.data.photo import form_of, read
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.runs.history import History
from mnist_lstm.runs.recorded_files import TRAIN
from mnist_lstm.runs.resolve import find
from mnist_lstm.runs.worktree import scratch
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.store import open_store

WEIGHTS = f"{TRAIN}/model.safetensors"


@dataclass(frozen=True)
class Tour:
    """The project of the tour, and the output of its commands."""

    project: Workspace
    capsys: pytest.CaptureFixture[str]

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run mnist-lstm in this process, which must end with that code; all that it prints."""
        self.capsys.readouterr()
        assert main(arguments) == code
        printed = self.capsys.readouterr()
        return printed.out + printed.err

    def json(self, *arguments: str) -> Any:
        self.capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        return json.loads(self.capsys.readouterr().out)

    @property
    def champion(self) -> registry.Version:
        found = registry.champion(open_store(self.project.folder))
        assert found
        return found


def test_variants_are_compared_and_the_best_is_promoted_used_and_reproduced(
    sweep: Workspace,
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = sweep.copy(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    tour = Tour(project, capsys)
    best, worst = choose(tour)
    promote(tour, best, worst)
    history = History(project.folder)
    with history.laid_out(find(history, best["name"]).training) as (folder,):
        ours = Classifier(RowLSTM.load(folder / "model.safetensors")).eval()
    read_pictures(tour, ours, tmp_path / "pictures")
    serve(tour, ours, tmp_path)

    dirty = train_changed_code(tour)
    shutil.rmtree(project.folder / ".dvc" / "cache")
    for path in (project.folder / "results").rglob("*.*"):
        path.unlink()
    said = tour.command("predict", str(tmp_path / "pictures"), code=2)
    assert f"the weights of the champion, version {tour.champion.number}, are not here" in said
    make_the_changed_one_again(tour, dirty)
    shutil.rmtree(project.folder / "data" / "raw")  # which is then fetched again
    make_the_best_one_again(tour, best, temporary)
    assert list(temporary.glob(SCRATCH)) == []


def choose(tour: Tour) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best and the worst run of the sweep, by validation accuracy."""
    runs = tour.json("runs", "--best", "4")
    accuracies = [run["validation_accuracy"] for run in runs]
    assert len(runs) == 4
    assert accuracies == sorted(accuracies, reverse=True)
    best, worst = runs[0], runs[-1]
    (pair,) = tour.json("compare", worst["name"], best["name"])["against_first"]
    difference = (pair["only_second"] - pair["only_first"]) / pair["images"]
    assert best["test_accuracy"] - worst["test_accuracy"] == pytest.approx(difference)
    assert (tour.project.folder / "comparison.png").is_file()
    return best, worst


def promote(tour: Tour, best: dict[str, Any], worst: dict[str, Any]) -> None:
    assert "is the champion now, version 1 of row-lstm" in tour.command("promote", best["name"])
    refused = tour.command("promote", worst["experiments"][0], code=1)
    assert f"{worst['name']} is version 2 of row-lstm, but not the champion: " in refused
    for run in (best, worst):
        assert f"{run['validation_accuracy']:.2%}" in refused
    assert tour.champion.training_id == best["training_id"]
    (line,) = (tour.project.folder / "champions.jsonl").read_text().splitlines()
    assert json.loads(line)["model"]["training_id"] == best["training_id"]
    note = {key: json.loads(line)[key] for key in ("at", "why", "margin")}
    copy = tour.project.without_store(tour.project.folder.with_name("without_store"))
    assert f"{best['name']}: it is the champion by git" in copy.command("sync")
    restored = registry.champion(open_store(copy.folder))
    assert restored
    assert restored.training_id == best["training_id"]
    assert json.loads(restored.tags["promotion.1"]).items() >= note.items()
    assert "agrees with all" in copy.command("verify")


def read_pictures(tour: Tour, ours: Classifier, folder: Path) -> None:
    """Test images that are drawn large, dark on light, get the champion's own answers."""
    folder.mkdir()
    for number, image in enumerate(images(tour)[:10].numpy()):
        large = Image.fromarray(255 - image).resize((90, 90), Image.Resampling.BICUBIC)
        large.save(folder / f"{number}.png")
    answers = tour.json("predict", str(folder))
    assert [Path(one["file"]).name for one in answers] == [f"{number}.png" for number in range(10)]
    form = form_of("digits", 8, 8)
    seen = torch.stack([torch.from_numpy(read(Path(one["file"]), form).pixels) for one in answers])
    assert_same([list(one["probabilities"].values()) for one in answers], ours, seen)
    said = tour.command("predict", str(folder / "0.png"))
    assert f"model: the champion, version 1, of {tour.champion.entrant.name}" in said


def images(tour: Tour) -> Tensor:
    return Sequences.load(tour.project.folder / "data" / "sequences" / "test.safetensors").pixels


def assert_same(answers: object, ours: Classifier, pixels: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(torch.tensor(answers), ours(pixels), rtol=0, atol=1e-6)


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


def serve(tour: Tour, ours: Classifier, folder: Path) -> None:
    """The server gives our answers, on this machine only, with reasons, and unpickles nothing."""
    unpickled = folder / "unpickled"
    (folder / "sitecustomize.py").write_text(WATCH.replace("UNPICKLED", repr(str(unpickled))))
    watched = {"PYTHONPATH": str(folder), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    control = f"import pickle; pickle.loads({pickle.dumps(folder)!r})"
    subprocess.run([sys.executable, "-c", control], env=os.environ | watched, check=True)
    assert "PosixPath" in unpickled.read_text()
    unpickled.unlink()

    pixels = images(tour)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = make(tour.project, "serve", port)
    with server(*command, folder=tour.project.folder, health=f"{url}/ping", **watched):
        assert listens_on(tour.project.folder) == {"127.0.0.1"}
        for batch in (pixels[:1], pixels.repeat(3, 1, 1)[:1000]):
            status, said = ask(url, json.dumps({"inputs": batch.tolist()}).encode())
            assert status == 200, said
            assert_same(json.loads(said)["predictions"], ours, batch)
        for content, words in REFUSED.items():
            status, said = ask(url, content)
            assert (status, words in json.loads(said)["message"]) == (400, True), said
        status, said = ask(url, b"1,2", "text/csv")
        assert (status, "must be application/json, is text/csv" in said) == (415, True)
        if shutil.which("curl"):
            text = (PROJECT / "docs" / "serving.md").read_text()
            (line,) = re.findall(r"(?m)^    (python .* curl .*)$", text)
            said = pasted(line.replace(":5001/", f":{port}/"))
            assert_same(json.loads(said)["predictions"], ours, pixels[:1])
            Image.fromarray(pixels[0].numpy()).save(folder / "seven.jpg", quality=100)
            (line,) = re.findall(r"(?m)^    (curl --data-binary .*)$", text)
            said = pasted(line.replace(":5001/", f":{port}/").replace("@", f"@{folder}/"))
            seen = read(folder / "seven.jpg", form_of("digits", 8, 8)).pixels
            answer = list(json.loads(said)["probabilities"].values())
            assert_same([answer], ours, torch.from_numpy(seen)[None])
            (line,) = re.findall(r"(?m)^    (curl -s .*)$", text)
            shown = pasted(line.replace(":5001/", f":{port}/"))
            assert f'expected{{of="ink"}} {float(images(tour).double().mean()) / 255}' in shown
            (share,) = re.findall(r'expected\{of="unsure"\} (\S+)', shown)
            said = tour.command("export", "--out", str(folder / "served"))
            assert "model: the champion, version 1, of " in said
            about = json.loads((folder / "served" / "about.json").read_text())
            assert about["usual"]["unsure"] == float(share)
            assert about["model_sha256"] == tour.champion.model_sha256
    assert not unpickled.exists(), unpickled.read_text()


def train_changed_code(tour: Tour) -> dict[str, Any]:
    """Train code that no commit has, and promote the run with --force; returns its run.json."""
    project = tour.project
    model = project.folder / "src" / "mnist_lstm" / "learning" / "model.py"
    changed = model.read_text().replace(
        "nn.init.constant_(self.head.bias, 0.1)", "nn.init.constant_(self.head.bias, START)"
    )
    start = "from mnist_lstm.learning.start import START"
    model.write_text(changed.replace("import UserError", f"import UserError\n{start}"))
    (model.parent / "start.py").write_text("START = 0.25\n")  # a file that git does not know
    assert stages_run(project.dvc("repro")) == ["train", "evaluate"]
    about: dict[str, Any] = project.json("results/train/run.json")
    assert about["dirty"]
    forced = ("--force", "--because", "its code is to be proved")
    tour.command("promote", about["training_id"], *forced)
    assert tour.champion.training_id == about["training_id"]
    project.git("checkout", "--", "src")
    (model.parent / "start.py").unlink()
    return about


def make_the_changed_one_again(tour: Tour, about: dict[str, Any]) -> None:
    tour.project.set("train.steps", 7)  # somebody's work, and not what is to be run
    run = about["training_id"][:6]
    refused = tour.command("reproduce", run, code=2)  # MLflow alone has it, with its patch
    assert " create mode 100644 src/mnist_lstm/learning/start.py\n" in refused
    told = reproduce(tour.project, run, "--trust-patch")
    assert (told["outcome"], told["reasons"], told["dirty"]) == ("identical", [], True)
    assert told["now"]["model_sha256"] == about["model_sha256"] == tour.champion.model_sha256


def make_the_best_one_again(tour: Tour, best: dict[str, Any], temporary: Path) -> None:
    """Reproduce the previous champion, a run from the queue of which only MLflow has files."""
    assert "is the champion again, version 1 of" in tour.command("promote", "--rollback")
    champion = tour.champion
    process = tour.project.start_warm("mnist-lstm", "reproduce", best["experiments"][0], "--keep")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert stages_run(printed) == ["fetch", "preprocess", "train", "evaluate"]
    assert "Iter0, step 20, train-test " in printed  # it was trained, not looked up
    assert "git add" not in printed
    assert f"{best['name']}: reproduced: the weights are the same, bit for bit\n" in printed
    (folder,) = temporary.glob(SCRATCH)
    assert f"kept: {folder / 'code'} (" in printed
    kept = Workspace(folder / "code")
    assert kept.json("results/train/run.json")["model_sha256"] == champion.model_sha256
    metrics = kept.json("results/evaluate/metrics.json")
    for split in ("validation", "test"):
        assert metrics[split]["accuracy"] == best[f"{split}_accuracy"]
        assert metrics[split]["loss"] == best[f"{split}_loss"]
    with scratch(tour.project.folder):
        pass
    assert folder.is_dir()  # what is kept is not cleaned up
    tour.project.git("worktree", "remove", "--force", str(folder / "code"))
    shutil.rmtree(folder)
