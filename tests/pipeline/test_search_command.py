"""Search by real dvc: stop it, continue, lose the records, prune."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest
import torch
from workspace import Workspace

import evaluate
import train
from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.learning import build
from mnist_lstm.learning.evaluation import overall
from mnist_lstm.pipeline import params
from mnist_lstm.runs import search, space
from mnist_lstm.runs.search import Judge, Plan, Search, Trial
from mnist_lstm.tracking.store import open_store

SPACE = "train.learning_rate: {low: 0.001, high: 0.02, log: true}\nmodel.hidden_size: [16, 24]\n"
STEPS = {"train.steps": 60, "train.eval_every": 5, "train.checkpoint_every": 1}
LONGER = ("search", "24", *(word for key, n in STEPS.items() for word in ("-S", f"{key}={n}")))
SHORT = ("-S", "train.steps=10", "-S", "train.eval_every=5")


def answer(workspace: Workspace, *arguments: str) -> Any:
    printed = workspace.command("search", *arguments, *SHORT, "--json")
    return json.loads(printed[printed.index("\n{\n") :])


def test_a_search_goes_on_after_a_stop_and_after_the_loss_of_its_records(
    workspace: Workspace,
) -> None:
    (workspace.folder / "recipes" / "search.yaml").write_text(SPACE)
    before = workspace.git("status", "--short")
    with workspace.start_warm("mnist-lstm", "search", "3", *SHORT) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("mnist-lstm search: trial 0: "):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.wait() == 130
    assert "mnist-lstm search: stopped; the same command continues from there" in rest
    found = answer(workspace, "2", "--pruner", "median")
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    experiments = workspace.experiments()
    assert len(experiments) == 2
    records = workspace.folder / "searches" / "search"
    assert {path.name for path in records.iterdir()} == {"trial-0.json", "trial-1.json"}
    shutil.rmtree(records)
    assert answer(workspace, "2") == found
    assert workspace.experiments() == experiments

    printed = workspace.command("search", "2", *SHORT)
    best = min(found["trials"], key=lambda trial: trial["loss"])
    apply = f"dvc exp apply {best['experiment']}"
    assert f"`{apply}` copies its parameters and results here" in printed
    assert (records / "search.png").is_file()
    assert max(map(len, printed.splitlines())) <= 200
    assert workspace.git("status", "--short").replace("?? searches/\n", "") == before
    before = workspace.groups()
    (parent,) = before.values()
    assert list(before) == ["trials of search"]
    assert parent["children"] == {trial["experiment"] for trial in found["trials"]}
    assert [value for _, value, _ in parent["metrics"]["best_validation_loss"]] == pytest.approx(
        [found["trials"][0]["loss"], best["loss"]]
    )
    assert parent["files"] == {"trials.csv", "search.png"}
    copy = workspace.without_store(workspace.folder.with_name("copy"))
    assert "trials of search: it has no parent run: fixed" in copy.command("sync")
    assert copy.groups() == before
    assert "agrees with all" in copy.command("verify")

    workspace.dvc(*apply.split()[1:])
    assert workspace.json("results/evaluate/metrics.json")["validation"]["loss"] == best["loss"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="the zygote's programs are found in /proc")
def test_a_search_that_is_killed_five_times_ends_with_the_same_trials(
    workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.folder / "recipes" / "search.yaml").write_text(SPACE)
    kill_often(workspace, KILLS)
    printed = workspace.command(*LONGER, "--json")
    found = json.loads(printed[printed.index("\n{\n") :])
    assert_as_undisturbed(workspace, found, tmp_path)
    assert_shown_once(workspace, found, tmp_path / "copy")
    best = found["best"]
    workspace.dvc("exp", "apply", best["experiment"])
    assert workspace.json("results/evaluate/metrics.json")["validation"]["loss"] == best["loss"]
    rate = f"learning_rate: {best['values']['train.learning_rate']} "
    assert rate in (workspace.folder / "params.yaml").read_text()


def kill_often(workspace: Workspace, kills: "Sequence[tuple[int, Kill]]") -> None:
    """Start the search and kill some of it after a trial, several times."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments are drawn with seed {seed}")
    dice = random.Random(seed)
    for after, kill in kills:
        # without its dvc, only an installed program notices that
        start = workspace.start if kill is its_dvc else workspace.start_warm
        with start("mnist-lstm", *LONGER) as process:
            assert process.stdout
            while not (line := process.stdout.readline()).startswith(
                f"mnist-lstm search: trial {after}: "
            ):
                assert line, f"it ended before trial {after}"
            what = kill(workspace, process, dice)
            rest = process.stdout.read()
        print(f"after trial {after}: {what}; exit code {process.returncode}", flush=True)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 2, rest
            assert "then repeat the command: it continues with this trial" in rest
            assert "Traceback" not in rest


def assert_as_undisturbed(workspace: Workspace, found: Any, scratch: Path) -> None:
    """All 24 trials are there, each once, and each is as in a search that nobody disturbs."""
    undisturbed = Undisturbed.of(workspace, scratch)
    expected = [json.loads(json.dumps(asdict(trial))) for trial in undisturbed.trials(24)]
    assert found["trials"] == expected
    assert undisturbed.best
    assert found["best"]["experiment"] == undisturbed.best.experiment
    assert len({trial["experiment"] for trial in expected}) == 24
    complete = [trial["loss"] for trial in expected if trial["loss"]]
    assert 4 < len(complete) < 24
    assert found["best"]["loss"] == min(complete)


def assert_shown_once(workspace: Workspace, found: Any, folder: Path) -> None:
    """MLflow has each trial once, and says which were pruned; also after its store was lost."""

    names = {trial["experiment"] for trial in found["trials"]}

    def shown(where: Workspace) -> dict[str, Any]:
        client = open_store(where.folder).client
        return {
            name: [
                (m.step, m.value)
                for m in client.get_metric_history(run.info.run_id, "validation_accuracy")
            ]
            for run in where.runs()
            if (name := run.data.tags.get("name")) in names  # the other one is the workspace's own
        }

    tags = [run.data.tags for run in workspace.runs()]
    assert sorted(each["dvc_experiment"] for each in tags if "dvc_experiment" in each) == sorted(
        names
    )
    pruned = {trial["experiment"] for trial in found["trials"] if trial["why"]}
    assert {each.get("dvc_experiment") for each in tags if "pruned" in each} == pruned
    groups, curves = workspace.groups(), shown(workspace)
    (parent,) = groups.values()
    assert parent["children"] == names == curves.keys()
    copy = workspace.without_store(folder)
    copy.command("sync")
    assert copy.groups() == groups
    assert shown(copy) == curves
    assert "agrees with all" in copy.command("verify")


class Undisturbed(Search):
    """A search whose trainings run in this process: without dvc, checkpoints, MLflow and kills."""

    @staticmethod
    def of(workspace: Workspace, folder: Path) -> "Undisturbed":
        path = workspace.folder / "params.yaml"
        recipe = params.flatten(params.load(path, STEPS).model_dump())
        tried = space.read(workspace.folder / "recipes" / "search.yaml", path, STEPS)
        plan = Plan("search", recipe, tried, "loss", "median", seed=0)
        return Undisturbed(workspace.folder, recipe, plan, folder / "undisturbed")

    def run(self, trial: Trial, judge: Judge, **_: Any) -> Trial:
        settings = params.load(self.root / "params.yaml", self.plan.recipe | trial.values)
        files = self.root / "data" / "sequences"
        data = {split: Sequences.load(files / f"{split}.safetensors") for split in SPLITS}
        make = partial(
            build.model, data["train"], torch.device("cpu"), **settings.model.model_dump()
        )
        learner = train.make_learner(settings, make, len(data["train"]), "float32", False)
        curve = []
        for evaluation in train.start_fit(settings, data, learner, None, 0):
            if evaluation:
                curve.append((evaluation.step, evaluation.validation_accuracy))
                if judge.hears(curve) is not None:
                    return search._pruned(trial, curve, judge)
        validation = data["validation"]
        size = settings.evaluate.batch_size
        answers = evaluate.answers_of(learner.model.eval(), 0, size, {"validation": validation})
        reached = overall(answers["validation"].last, validation.labels)
        return replace(trial, curve=curve, value=reached["loss"], **reached)


Popen: TypeAlias = "subprocess.Popen[str]"


def the_command(workspace: Workspace, process: Popen, dice: random.Random) -> str:
    """Kill the command alone, at any moment of a trial. Its dvc and its training end themselves."""
    time.sleep(delay := dice.uniform(0, 8))
    process.kill()
    return f"command killed {delay:.1f} s later"


def the_training(workspace: Workspace, process: Popen, dice: random.Random) -> str:
    """Kill a training that has saved a checkpoint."""
    trainer = at_work(workspace)
    time.sleep(delay := dice.uniform(0, 0.5))
    os.kill(trainer, signal.SIGKILL)
    return f"training killed {delay:.1f} s after its first checkpoint"


def its_dvc(workspace: Workspace, process: Popen, dice: random.Random) -> str:
    """Kill the dvc that a trial runs in. Its training ends itself."""
    at_work(workspace)
    killed = [each.kill() for each in dvc_of(workspace)]
    return f"{len(killed)} dvc killed"


def everything(workspace: Workspace, process: Popen, dice: random.Random) -> str:
    """Kill the command, then its dvc and its training, as when a machine goes off."""
    trainer = at_work(workspace)
    process.kill()
    for each in dvc_of(workspace):
        each.kill()
    os.kill(trainer, signal.SIGKILL)
    return "command, dvc and training killed"


Kill: TypeAlias = Callable[[Workspace, Popen, random.Random], str]
KILLS: tuple[tuple[int, Kill], ...] = (
    (1, the_training),
    (4, the_command),
    (7, its_dvc),
    (11, everything),
    (15, the_command),
)


def at_work(workspace: Workspace) -> int:
    """The id of the process that trains in a workspace next, once it has saved a checkpoint."""
    before = trainers(workspace)
    while True:
        for trainer in trainers(workspace) - before:
            if psutil.pid_exists(trainer):
                return trainer
        time.sleep(0.02)


def trainers(workspace: Workspace) -> set[int]:
    """The ids of the processes, now gone perhaps, that have saved a checkpoint of an unfinished
    training.
    """
    found = set()
    for lock in (workspace.folder / ".checkpoints").glob("*/lock"):
        with contextlib.suppress(FileNotFoundError):
            words = lock.read_text().split()
            if len(words) > 1 and lock.with_name("checkpoint.safetensors").exists():
                found.add(int(words[1]))
    return found


def dvc_of(workspace: Workspace) -> list[psutil.Process]:
    """The dvc of a trial."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_here = Path(process.cwd()).is_relative_to(workspace.folder)
            if is_here and {"dvc", "exp", "run"} <= set(process.cmdline()):
                found.append(process)
    assert found
    return found
