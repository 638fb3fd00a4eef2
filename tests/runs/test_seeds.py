import hashlib
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from samples import PROJECT, REFERENCE_RECIPE, record_of_seed, recorded_recipe
from test_history import Project

from mnist_lstm import UserError
from mnist_lstm.cli import main
from mnist_lstm.commands import changes
from mnist_lstm.commands import seeds as command
from mnist_lstm.commands.seeds import _code_of, format_summary
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import write_json
from mnist_lstm.runs import experiment, seeds
from mnist_lstm.runs.history import History
from mnist_lstm.runs.seeds import seed_record, summary, train_at_once


def test_the_interval_is_students() -> None:
    found = summary([0.98, 0.982, 0.987], "accuracy")
    assert found.n == 3
    assert found.mean == pytest.approx(0.983)
    assert found.deviation == pytest.approx(0.003606, abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    # t of 2 degrees of freedom at 97.5 %, from a table of Student's distribution
    half = 4.302653 * 0.0036055513 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.983 - half, 0.983 + half), abs=1e-7)


def test_the_interval_ends_where_no_value_can_be() -> None:
    few = [0.97, 0.99]  # t of 1 degree of freedom reaches 13 points to each side
    found = summary(few, "accuracy")
    assert (found.low, found.high) == (pytest.approx(0.98 - 12.7062 * 0.01, abs=1e-4), 1)
    assert summary(few, "test_accuracy").high == 1  # the metric's name in MLflow
    loss = summary([0.01, 0.99], "loss")
    assert loss.low == 0
    assert loss.high is not None
    assert loss.high > 6


def test_one_seed_has_no_spread() -> None:
    found = summary([0.98], "accuracy")
    assert (found.mean, found.deviation, found.low, found.high) == (0.98, None, None, None)
    assert format_summary(found) == "98.00%; a standard deviation needs two seeds"


def test_equal_figures_have_an_interval_of_no_width() -> None:
    assert format_summary(summary([0.98, 0.98], "accuracy")) == (
        "mean 98.00%, standard deviation 0.00 points, 95 % interval of the mean 98.00% to 98.00%"
    )


def recorded(folder: Path, **about: object) -> str:
    """The row of a seed whose record has that."""
    params = {"seed": 0, "train.steps": 10}
    write_json(folder / "seed-0.json", record_of_seed(params, **about))
    taken = seed_record(folder, params, params, "code", "params", folder)
    return _code_of(taken, "digest of the present code")


def test_the_row_of_a_record_names_other_code(tmp_path: Path) -> None:
    assert recorded(tmp_path, code="digest of the present code") == "as now"
    assert recorded(tmp_path, code="another") == "of e22c82900, changed"
    assert recorded(tmp_path, dirty=False) == "of e22c82900"


@pytest.mark.parametrize("lacks", ["metrics", "seconds", "params"])
def test_a_damaged_record_is_named(tmp_path: Path, lacks: str) -> None:
    params = {"seed": 0, "train.steps": 10}
    found = record_of_seed(params)
    del found[lacks]
    write_json(tmp_path / "seed-0.json", found)
    with pytest.raises(UserError, match=rf"seed-0\.json: {lacks} is missing; it is damaged, or"):
        seed_record(tmp_path, params, params, "code", "params", tmp_path)
    figures = {"validation": {"accuracy": 0.5}, "test": {"accuracy": 0.5, "loss": 0.5}}
    write_json(tmp_path / "seed-0.json", record_of_seed(params, metrics=figures))
    with pytest.raises(
        UserError, match=r"seed-0\.json: validation\.loss must be a number, is null"
    ):
        seed_record(tmp_path, params, params, "code", "params", tmp_path)


def test_fresh_trains_whatever_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def dvc(*arguments: str, **_: object) -> tuple[int, list[str]]:
        asked.append(arguments)
        return 1, []

    (tmp_path / "dvc.yaml").touch()
    shutil.copy(REFERENCE_RECIPE, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "code_digest", lambda _: "code")
    monkeypatch.setattr(experiment, "run_dvc", dvc)
    monkeypatch.setattr(command, "show_groups", lambda *_: None)
    recipe = params.flatten(params.load(tmp_path / "params.yaml").model_dump())
    write_json(tmp_path / "records" / "seed-0.json", record_of_seed(recipe | {"seed": 0}))
    recorded = ("seeds", "1", "--record", "records")
    assert main(recorded) == 0
    assert not asked
    assert main([*recorded, "--fresh"]) == 2
    assert "seed 0: `dvc exp run` ended with exit code 1" in capsys.readouterr().err
    ((*_, last),) = asked
    assert last == "--force"


def test_an_experiment_has_no_value_of_the_workspace(tmp_path: Path) -> None:
    """params.yaml may be edited until dvc reads it, or be of an earlier version."""
    given = {"train.weight_decay": 0.00001, "train.device": "cuda:1", "preprocess.split_seed": 3}
    recipe = params.flatten(params.load(REFERENCE_RECIPE, given).model_dump())
    path = tmp_path / "params.yaml"
    here = params.flatten(params.load(PROJECT / "recipes" / "best.yaml").model_dump())
    path.write_text(
        yaml.safe_dump(
            params.with_values({}, {key: here[key] for key in here.keys() - params.ADDED.keys()})
        )
    )
    options = experiment.overrides(recipe)
    assert set(options[::2]) == {"--set-param"}
    apply_overrides(path, options[1::2])
    assert params.flatten(params.load(path).model_dump()) == recipe


def test_code_that_is_edited_meanwhile_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All seeds have the code of the first one."""
    project, trained = Project(tmp_path), []
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    (code := tmp_path / "src" / "train.py").parent.mkdir()
    code.touch()
    head = project.commit("the code of the first seed")

    def dvc(*arguments: str, **_: object) -> tuple[int, list[str]]:
        name = arguments[arguments.index("--name") + 1]
        trained.append(name)
        project.train("a")  # whose seed is 97
        project.cache()
        found = project.commit("a")
        project.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", found)
        project.git("reset", "--quiet", "--hard", head)
        code.write_text("print()")
        return 0, []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "run_dvc", dvc)
    assert main(["seeds", "2", "--from", "97"]) == 2
    said = capsys.readouterr().err
    assert "seeds: experiment params-seed-98-" in said
    assert ": the code was edited meanwhile; repeat the command, which then begins with" in said
    assert len(trained) == 1


def test_code_that_is_edited_until_dvc_copies_it_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dvc may wait for another one before that."""
    digests = iter(("code", "edited", "edited"))
    monkeypatch.setattr(experiment, "code_digest", lambda _: next(digests))
    told = list[str]()

    def dvc(*_: str, report: Callable[[str], object], **__: object) -> tuple[int, list[str]]:
        report("Waiting for lock")
        report("Running stage 'train':")
        pytest.fail("the training was not stopped")

    monkeypatch.setattr(experiment, "run_dvc", dvc)
    with pytest.raises(UserError, match="experiment name: the code was edited meanwhile"):
        experiment.train(tmp_path, "name", {}, {}, "code", report=told.append)
    assert told == ["Waiting for lock"]


def test_the_result_of_a_name_is_that_of_the_present_commit(tmp_path: Path) -> None:
    """With the same code, other packages may have trained an experiment of the same name."""
    project, baselines = Project(tmp_path), []
    for letter in "ab":
        baselines.append(head := project.commit(f"packages {letter}"))
        project.train(letter)
        project.cache()
        trained = project.commit(letter)
        project.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/quick-seed-0-abcdef", trained)
        project.git("reset", "--quiet", "--hard", head)
    for head, letter in zip(baselines, "ab", strict=True):
        project.git("checkout", "--quiet", head)
        assert experiment.result_of(History(tmp_path), "quick-seed-0-abcdef", {}).name == letter
    settings = {"seed": ord("b"), "train.steps": 10}  # of which the results have the seed
    assert experiment.result_of(History(tmp_path), "quick-seed-0-abcdef", settings).name == "b"
    with pytest.raises(UserError, match="was trained with seed=98, which its recipe does not"):
        experiment.result_of(History(tmp_path), "quick-seed-0-abcdef", {"seed": 0})
    project.commit("packages c")
    with pytest.raises(UserError, match="quick-seed-0-abcdef has no whole results here"):
        experiment.result_of(History(tmp_path), "quick-seed-0-abcdef", {})


def test_an_experiment_whose_times_are_damaged_has_no_whole_results(tmp_path: Path) -> None:
    project, settings, said = Project(tmp_path), {"seed": ord("a")}, list[str]()
    head = project.commit("begin")
    project.train("a")
    project.cache()
    times = tmp_path / "results" / "train" / "timing.csv"
    digest = hashlib.md5(times.read_bytes()).hexdigest()
    times.unlink()
    name = experiment.name_of(f"quick-seed-{ord('a')}", settings, "code")
    project.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", project.commit("a"))
    project.git("reset", "--quiet", "--hard", head)
    arguments = (tmp_path, settings, {}, "code", "quick", None)
    assert seed_record(*arguments)["seconds"] == ord("a")
    (cached,) = (tmp_path / ".dvc" / "cache").rglob(digest[2:])
    cached.write_text("damaged")
    with pytest.raises(UserError, match=f"experiment {name} has no whole results here; "):
        seed_record(*arguments, note=said.append)
    assert cached.name in "".join(said)


def test_it_waits_for_another_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which DVC says in two ways; a third failure is the training's own."""
    answers = [
        (255, ["ERROR: Unable to acquire lock. Most likely another DVC process is running"]),
        (255, ["ERROR: 'workspace' is busy, it is being blocked by:", "  (PID 1): dvc repro"]),
        (1, ["ERROR: failed to reproduce 'train'"]),
    ]
    monkeypatch.setattr(experiment, "run_dvc", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(experiment, "PAUSE", 0)
    monkeypatch.setattr(experiment, "code_digest", lambda _: "code")
    assert experiment.train(tmp_path, "name", {}, {}, "code")[0] == 1
    assert answers == []


def test_seeds_are_trained_at_once_and_their_dvcs_start_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of three: the third begins when one has ended."""
    together, log = threading.Barrier(2, timeout=60), list[str]()

    def train(seed: int, *, report: Callable[[str], object], **_: object) -> tuple[int, list[str]]:
        log.append("starts")
        report("Running stage 'fetch':")
        if seed < 2:
            together.wait()
        return 0, []

    monkeypatch.setattr(experiment, "train", train)
    ended = list[int]()

    def record_of(seed: int, train: Callable[..., object]) -> dict[str, int]:
        train(seed)
        return {"seed": seed}

    found = train_at_once(record_of, range(3), 2, lambda each: ended.append(each["seed"]))
    assert found == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert sorted(ended) == [0, 1, 2]
    assert log == ["starts"] * 3


def test_if_one_seed_fails_the_others_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, outcomes = threading.Event(), list[str]()

    def train(
        seed: int, *, report: Callable[[str], object], is_enough: Callable[[], bool], **_: object
    ) -> tuple[int, list[str]]:
        report("Running stage 'fetch':")
        if seed == 0:
            begun.wait(60)
            return 1, ["ERROR: it failed"]
        begun.set()
        while not is_enough():
            time.sleep(0.01)
        return 130, ["saved"]

    monkeypatch.setattr(experiment, "train", train)

    def record_of(seed: int, train: Callable[..., tuple[int, list[str]]]) -> dict[str, int]:
        try:
            code, _ = train(seed)
        except experiment.Stopped:
            outcomes.append("stopped")
            raise
        raise UserError(f"exit code {code}")

    with pytest.raises(UserError, match="exit code 1"):
        train_at_once(record_of, range(3), 2, outcomes.append)
    assert outcomes == ["stopped"] or outcomes == ["stopped"] * 2  # the third may have begun


def test_an_interrupt_while_the_seeds_begin_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = list[str]()

    def train(_: int, *, is_enough: Callable[[], bool], **__: object) -> tuple[int, list[str]]:
        for _ in range(1000):
            if is_enough():
                return 130, []
            time.sleep(0.01)
        outcomes.append("trained to its end")
        return 0, []

    class Interrupted(list[int]):
        def __iter__(self) -> Iterator[int]:
            yield 0
            raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "train", train)
    with pytest.raises(KeyboardInterrupt):
        train_at_once(lambda seed, train: {"seed": train(seed)}, Interrupted(), 2, print)
    assert outcomes == []


def test_changes_are_yaml_as_in_a_recipe() -> None:
    given = ["train.steps=100", "model.reads=both", "train.clip_norm=null", "seed=0777"]
    assert changes(given) == {
        "train.steps": 100,
        "model.reads": "both",
        "train.clip_norm": None,
        "seed": "0777",
    }
    for text, said in (("steps", "-S must be KEY=VALUE"), ("a=[1", "-S a: line 1, column 3: ")):
        with pytest.raises(UserError, match=said):
            changes([text])


Told = Callable[[int, Callable[[str], object]], object]


def tried(path: Path, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """Make a project in which a seed is trained at once; `told` gets it and its function `note`."""

    def read(root: Path, settings: dict[str, object], *_: object, **others: Any) -> object:
        told(settings["seed"], others["note"])
        figures = {"accuracy": 0.5, "loss": 0.1}
        return {
            "params": {"seed": settings["seed"], "train.steps": 10},
            "metrics": {"validation": figures, "test": figures},
            **{"seconds": 1, "device": "cpu", "code": "code", "name": "drawn"},
        }

    (path / "dvc.yaml").touch()
    shutil.copy(REFERENCE_RECIPE, path / "params.yaml")
    monkeypatch.chdir(path)
    monkeypatch.setattr(seeds, "seed_record", read)
    monkeypatch.setattr(experiment, "code_digest", lambda _: "code")
    monkeypatch.setattr(command, "show_groups", lambda *_: None)


def test_damaged_files_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each seed reads all results again."""
    tried(tmp_path, monkeypatch, lambda _, note: note("left out: results/train/run.json: damaged"))
    assert main(["seeds", "2"]) == 0
    line = "mnist-lstm seeds: left out: results/train/run.json: damaged\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_seeds_begin_where_they_are_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: str,
) -> None:
    trained: list[int] = []
    tried(tmp_path, monkeypatch, lambda seed, _: trained.append(seed))
    assert main(["seeds", "3", "--from", "4", "--workers", workers]) == 0
    assert sorted(trained) == [4, 5, 6]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:4]] == ["4", "5", "6"]
    for wrong in ("-1", "one", "0.5"):
        with pytest.raises(SystemExit):
            main(["seeds", "3", f"--from={wrong}"])
        said = capsys.readouterr().err
        assert f"argument --from: must be a whole number from 0, is '{wrong}'" in said


def test_the_record_of_a_seed_is_read_with_damaged_files_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def history(_: Path, note: Callable[[str], object]) -> None:
        note("left out: one")
        raise UserError("that is enough")

    monkeypatch.setattr(seeds, "History", history)
    monkeypatch.setattr(experiment, "is_there", lambda *_: True)
    with pytest.raises(UserError, match="that is enough"):
        seed_record(tmp_path, {"seed": 0}, {}, "code", "params", None, note=said.append)
    assert said == ["left out: one"]


RECORDED = sorted((PROJECT / "recipes" / "results").glob("*/seed-*.json"))


@pytest.mark.parametrize("record", RECORDED, ids=lambda path: f"{path.parent.name}, {path.stem}")
def test_the_committed_records_are_of_the_committed_recipes(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/accuracy.md train nothing that is recorded."""
    monkeypatch.setattr(experiment, "train", None)
    name, seed = record.parent.name, int(record.stem.removeprefix("seed-"))
    settings = recorded_recipe(name) | {"seed": seed}
    read = seed_record(PROJECT, settings, {}, "code", name, record.parent)
    assert read["model_sha256"]
