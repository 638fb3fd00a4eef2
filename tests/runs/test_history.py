"""The recorded trainings: where each is recorded, and which of its files are here.

tests/pipeline tests real experiments and DVC's cache.
"""

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo import Repo
from samples import FINISHED, write_lock

from mnist_lstm import UserError
from mnist_lstm.cli import main
from mnist_lstm.commands import read_history
from mnist_lstm.pipeline.result_files import EvaluationRecord, write_json, write_rows
from mnist_lstm.runs.history import History, Partial

BELOW = "refs/exps/" + "ab/" + "c" * 38  # as DVC names those of a baseline


def moment(letter: str) -> str:
    return f"2026-01-02T03:04:{ord(letter) - 80}+00:00"


def curve(letter: str) -> dict[str, float]:
    accuracies = ("train_accuracy", "validation_accuracy", "test_accuracy")
    return {"step": 1, **dict.fromkeys(accuracies, ord(letter) / 1000), "train_loss": 0.5}


class Project:
    """A repository with commits of results that were not trained."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")
        self.git("config", "user.name", "A. Tester")
        self.git("config", "user.email", "tester@example.org")
        Repo.init(str(root)).close()
        (root / ".gitignore").write_text("run.json\nmodel.safetensors\ntiming.csv\n")
        self.commit("begin")

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def train(self, letter: str) -> None:
        """Write the results of a training into the workspace, with their dvc.lock."""
        train, evaluate = self.root / "results" / "train", self.root / "results" / "evaluate"
        record = replace(
            FINISHED,
            training_id=letter * 32,
            name=letter,
            started=moment(letter),
            params={"seed": ord(letter)},
        )
        write_json(train / "run.json", record.as_json())
        write_rows(train / "curve.csv", [curve(letter)])
        write_rows(
            train / "timing.csv", [{"step": 1, "time": moment(letter), "seconds": ord(letter)}]
        )
        (train / "model.safetensors").write_text(f"the model {letter}")
        write_json(evaluate / "metrics.json", {"test": {"accuracy": ord(letter) / 1000}})
        self.judge(letter, moment(letter))

    def judge(self, letter: str, ended: str) -> None:
        record = EvaluationRecord(letter * 32, ended, ended, {})
        write_json(self.root / "results" / "evaluate" / "run.json", vars(record))
        self.lock(letter)

    def lock(self, letter: str) -> None:
        seed = {"seed": ord(letter)}
        params = {"fetch": {"fetch": {"dataset": "drawn"}}, "train": seed, "evaluate": seed}
        write_lock(self.root, params)

    def cache(self) -> None:
        """Put the files in results/ into DVC's cache."""
        with Repo(str(self.root)) as repo:
            for path in (self.root / "results").rglob("*.*"):
                digest = hashlib.md5(path.read_bytes()).hexdigest()
                cached = Path(repo.cache.local.oid_to_path(digest))
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_bytes(path.read_bytes())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_nothing_is_recorded_at_first(project: Project) -> None:
    history = History(project.root)
    assert (history.results, history.partial, history.elsewhere) == ([], [], 0)
    assert history.head is history.workspace is None


def test_each_result_knows_its_commits_and_experiments(project: Project) -> None:
    project.train("a")
    project.cache()
    first = project.commit("a")
    project.git("update-ref", f"{BELOW}/one", first)  # had from the cache: it changed nothing
    project.git("update-ref", f"{BELOW}/team/two", project.commit("nothing new"))
    project.git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")  # DVC's own notes
    project.git("update-ref", "refs/exps/celery/stash", "HEAD")
    project.train("b")
    project.cache()
    history = History(project.root)
    a, b = history.results
    assert sorted(a.experiments) == ["one", "team/two"]
    assert set(a.commits) == {first, project.git("rev-parse", "HEAD")}
    assert (b.name, b.commits, b.experiments) == ("b", [], [])
    assert history.head is a
    assert history.workspace is b
    assert history.metrics(b) == {"test": {"accuracy": 0.098}}
    assert history.rows(b.training, "curve.csv") == [curve("b")]
    assert (history.partial, history.elsewhere) == ([], 0)


def test_the_latest_evaluation_is_the_last(project: Project) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    evaluate = project.root / "results" / "evaluate"
    write_json(evaluate / "metrics.json", {"test": {"accuracy": 1}})
    project.judge("a", moment("b"))
    project.lock("a")
    (result,) = (history := History(project.root)).results
    assert len(result.evaluations) == 2
    assert history.metrics(result) == {"test": {"accuracy": 1}}


def test_a_clone_has_the_small_tables_of_a_result(project: Project, tmp_path: Path) -> None:
    project.train("a")
    commit = project.commit("a")
    project.git("clone", "--quiet", str(project.root), str(tmp_path / "clone"))
    history = History(tmp_path / "clone")
    (result,) = history.partial
    assert history.results == []
    assert history.elsewhere == 2
    assert result is history.head is history.workspace
    assert result.commits == [commit]
    assert (result.name, result.dataset, result.record) == (commit[:7], "drawn", None)
    assert result.params == {"fetch": {"dataset": "drawn"}, "seed": ord("a")}
    assert history.metrics(result) == {"test": {"accuracy": 0.097}}
    assert history.rows(result.training, "curve.csv") == [curve("a")]
    assert history.rows(result.training, "timing.csv") == []


def test_tables_of_one_name_are_compared_under_their_commits(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "dvc.yaml").touch()
    commits = []
    for letter in "abc":
        head = project.commit(f"before {letter}")
        project.train(letter)
        commits.append(project.commit(letter))
        project.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/again", commits[-1])
    for path in (project.root / "results").rglob("*.*"):
        path.unlink()
    monkeypatch.chdir(project.root)
    assert main(["compare", *commits, "--json"]) == 1
    said = capsys.readouterr()
    pairs = json.loads(said.out)["against_first"]
    assert [pair["name"] for pair in pairs] == [f"again {commit[:8]}" for commit in commits[1:]]
    assert "is not in the picture" not in said.err


def test_runs_of_commits_are_listed_the_earliest_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "dvc.yaml").touch()
    commits = []
    for number in range(12):
        project.train(chr(ord("a") + number))
        commits.append(project.commit(str(number))[:7])
    for path in (project.root / "results").rglob("*.*"):
        path.unlink()
    monkeypatch.chdir(project.root)
    for arguments in ([], ["--sort", "started"]):
        assert main(["runs", "--all", "--json", *arguments]) == 0
        assert [run["name"] for run in json.loads(capsys.readouterr().out)] == commits
    assert main(["compare", "none", commits[0]]) == 2
    known = f"known runs: {', '.join(commits[2:])} and 2 more\n"
    assert capsys.readouterr().err.endswith(known)


def test_results_that_are_not_committed(project: Project) -> None:
    project.train("a")
    history = History(project.root)
    assert history.workspace is history.results[0]
    assert history.evaluation == history.results[0].evaluations[0]
    (project.root / "results" / "train" / "model.safetensors").unlink()
    history = History(project.root)
    assert history.results == []
    (result,) = history.partial
    assert result is history.workspace
    assert result.name == "a"
    (project.root / "dvc.lock").unlink()
    history = History(project.root)
    assert history.workspace is None
    assert history.mixed
    assert history.mixed.endswith("and 2 more differ from dvc.lock; `dvc repro` fixes that")


def test_files_of_several_runs_are_no_result(project: Project) -> None:
    """As `dvc exp apply` and then `git checkout` leave them: git has the small tables alone."""
    project.train("a")
    project.cache()
    project.commit("a")
    project.train("b")
    project.cache()
    project.git("update-ref", f"{BELOW}/b", project.commit("b"))
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    history = History(project.root)
    assert history.workspace is None
    assert history.mixed == (
        "the results in the workspace do not belong to one recorded run, so they are not used: "
        "results/train/model.safetensors, results/train/run.json, results/train/timing.csv and 1 "
        "more differ from dvc.lock; `dvc checkout` fixes that"
    )
    assert [result.name for result in history.results] == ["a", "b"]
    for result in history.results:
        assert history.rows(result.training, "curve.csv") == [curve(result.name)]
        assert history.metrics(result) == {"test": {"accuracy": ord(result.name) / 1000}}
    assert history.head is history.results[0]


@pytest.mark.parametrize(("kept", "mend"), [(True, "git checkout results"), (False, "dvc repro")])
def test_a_table_that_was_edited_is_of_no_run(project: Project, kept: bool, mend: str) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    if not kept:  # the lock is of another run than HEAD's
        project.train("b")
        project.cache()
    metrics = project.root / "results" / "evaluate" / "metrics.json"
    write_json(metrics, {"test": {"accuracy": 1}})
    history = History(project.root)
    assert history.mixed
    assert history.mixed.endswith(
        f"results/evaluate/metrics.json differs from dvc.lock; `{mend}` fixes that"
    )
    assert {history.metrics(result)["test"]["accuracy"] for result in history.results} <= {
        0.097,
        0.098,
    }


def test_a_lock_that_was_merged_by_hand_claims_no_run(project: Project) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    mine = project.root / "results" / "train" / "curve.csv"
    project.train("b")
    project.cache()
    write_rows(mine, [curve("a")])  # a's curve beside b's run.json
    project.lock("b")
    project.cache()
    commit = project.commit("merged")
    project.train("b")  # as it was, and nothing but the workspace's lock says so
    history = History(project.root)
    assert history.unreadable == [
        f"{commit[:7]}:dvc.lock: the files of results/train belong to several runs"
    ]
    assert history.head is None
    a, b = history.results
    assert (len(a.commits), b.commits) == (1, [])
    assert history.workspace is b
    assert history.rows(b.training, "curve.csv") == [curve("b")]


def test_runs_without_a_curve_are_compared_without_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit may have the lock of a run and not its curve: it was never added to git."""
    for letter in "ab":
        project.train(letter)
        (project.root / "dvc.yaml").touch()
        project.git("add", "dvc.lock")
        project.git("commit", "--quiet", "--message", letter)
    for path in (project.root / "results").rglob("*.*"):
        path.unlink()
    monkeypatch.chdir(project.root)
    names = [result.name for result in History(project.root).partial]
    assert main(["compare", *names]) == 1
    printed = capsys.readouterr()
    assert "comparison.png" not in printed.out
    assert "promote" not in printed.out  # without a model, none can be promoted
    assert printed.err.count("is not in the picture: its curve.csv is not here") == 2


def test_the_list_has_experiments_whose_model_is_not_here_if_asked_for_all(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train("a")
    project.git("update-ref", f"{BELOW}/away", project.commit("a"))
    project.train("b")
    project.cache()
    (project.root / "dvc.yaml").touch()
    project.commit("b")
    monkeypatch.chdir(project.root)
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out
    assert "away" not in printed
    assert "\n1 more in git's history, without their models: --all\n" in printed
    assert main(["runs", "--all"]) == 0
    assert capsys.readouterr().out.count("\naway ") == 1


def test_compared_runs_differ_from_heads_recipe_as_listed_ones_do(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "dvc.yaml").touch()
    (project.root / "params.yaml").write_text(f"seed: {ord('a')}\n")
    for letter in "ab":
        project.train(letter)
        project.cache()
        project.commit(letter)
    monkeypatch.chdir(project.root)
    main(["compare", "a", "b", "--json"])
    compared = json.loads(capsys.readouterr().out)["runs"]
    assert [run["differs"] for run in compared] == [{}, {"seed": ord("b")}]
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == compared


def test_a_damaged_object_in_the_cache_is_named_and_the_file_is_read_elsewhere(
    project: Project,
) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    path = project.root / "results" / "train" / "run.json"
    with Repo(str(project.root)) as repo:
        cached = Path(repo.cache.local.oid_to_path(hashlib.md5(path.read_bytes()).hexdigest()))
    cached.write_bytes(path.read_bytes()[:100])
    history = History(project.root)
    assert [result.name for result in history.results] == ["a"]
    (line,) = history.unreadable
    name = cached.relative_to(project.root)
    assert line == f"{name}: damaged: its MD5 is not the one in its name; delete it"
    path.unlink()
    history = History(project.root)
    assert history.results == []
    assert [result.name for result in history.partial] == [project.git("rev-parse", "HEAD")[:7]]
    assert history.unreadable == [line]


def test_an_evaluation_of_another_training_is_not_the_workspaces(project: Project) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    evaluate = project.root / "results" / "evaluate"
    before = {path: path.read_bytes() for path in evaluate.iterdir()}
    project.train("b")
    for path, content in before.items():  # b has not been evaluated
        path.write_bytes(content)
    project.lock("b")
    history = History(project.root)
    assert history.workspace is history.results[1]
    assert (history.mixed, history.evaluation, history.results[1].evaluations) == (None, {}, [])


def test_equal_files_are_both_there(project: Project) -> None:
    project.train("a")
    evaluate = project.root / "results" / "evaluate"
    for name in ("one.png", "two.png"):
        (evaluate / name).write_bytes(b"the same")
    project.lock("a")
    assert {Path(path).name for path in History(project.root).evaluation} >= {"one.png", "two.png"}


def test_a_repository_that_git_refuses_to_read_is_no_empty_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    with pytest.raises(UserError, match="dubious ownership"):
        History(project.root)


def test_a_record_that_cannot_be_read_is_named_and_left_out(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train("a")
    project.cache()
    project.commit("a")
    project.train("b")
    path = project.root / "results" / "train" / "run.json"
    path.write_text("{}")
    project.lock("b")
    history = read_history(project.root, "runs")
    printed = capsys.readouterr().err
    assert printed == f"mnist-lstm runs: left out: {history.unreadable[0]}\n"
    assert [result.name for result in history.results] == ["a"]
    (line,) = history.unreadable
    assert line.startswith("results/train/run.json: training_id is missing")
    assert isinstance(history.workspace, Partial)
    assert history.head is history.results[0]


def test_the_best_run_is_one_that_is_here_as_text_and_as_json(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "dvc.yaml").touch()
    for letter in "ba":  # of b, only the tables stay
        project.train(letter)
        measured = {"accuracy": ord(letter) / 1000, "loss": 0.5}
        metrics = project.root / "results" / "evaluate" / "metrics.json"
        write_json(metrics, dict.fromkeys(("validation", "test"), measured))
        project.lock(letter)
        project.commit(letter)
    monkeypatch.chdir(project.root)
    away = project.git("rev-parse", "HEAD~1")[:7]
    for arguments, expected in {"--best 1": "a", "--best 1 --all": away}.items():
        assert main(["runs", *arguments.split()]) == 0
        printed = capsys.readouterr().out
        assert f"\n{expected} " in printed
        assert ("mnist-lstm promote RUN" in printed) == (expected == "a")
        assert main(["runs", *arguments.split(), "--json"]) == 0
        assert [run["name"] for run in json.loads(capsys.readouterr().out)] == [expected]


def test_the_best_of_two_data_sets_are_said_to_be_of_each(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "dvc.yaml").touch()
    for letter, dataset in {"a": "one", "b": "other"}.items():
        project.train(letter)
        record = project.root / "results" / "train" / "run.json"
        write_json(record, json.loads(record.read_text()) | {"dataset": dataset})
        measured = {"validation": {"accuracy": 0.5, "loss": 0.5}}
        write_json(project.root / "results" / "evaluate" / "metrics.json", measured)
        project.lock(letter)
        project.cache()
        project.commit(letter)
    monkeypatch.chdir(project.root)
    assert main(["runs", "--best", "3"]) == 0
    title = "The best 3 of each data set, of 2 runs, by accuracy on validation images:\n"
    assert capsys.readouterr().out.startswith(title)
