"""Files of results that are damaged: they are named and left out, and all others are served."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from hypothesis import given
from hypothesis import strategies as st
from mutations import CLAIMS, TOKEN, Edit, edited, fuzz, reworded, some_edits
from samples import BEGUN, PROJECT, small_model, write_lock

from mnist_lstm import UserError, git
from mnist_lstm.dvc_cache import DvcCache
from mnist_lstm.files import sha256
from mnist_lstm.pipeline.result_files import (
    EvaluationRecord,
    SplitRecord,
    Training,
    write_json,
    write_rows,
)
from mnist_lstm.runs import listing, predictor
from mnist_lstm.runs.audit import view
from mnist_lstm.runs.comparison import pair
from mnist_lstm.runs.history import History

MARKS = b"<<<<<<< HEAD\n%b=======\n%b>>>>>>> theirs\n"
FILES = [
    *(f"results/train/{name}" for name in ("run.json", "curve.csv", "timing.csv")),
    *(f"results/evaluate/{name}" for name in ("run.json", "metrics.json", "predictions.csv")),
    "results/evaluate/classes.csv",
    "dvc.lock",
]
VALUES = [claim.encode() for claim in CLAIMS] + [b"\x1b[31m", b"\0", b",", b"\n", b'"', b"\xff"]
DAMAGE = st.one_of(
    st.tuples(st.just("edit"), some_edits(VALUES)),
    st.tuples(st.just("claim"), st.tuples(st.integers(0, 999), st.sampled_from(CLAIMS))),
    st.tuples(st.sampled_from(["marks", "empty"]), st.none()),
)
# in the workspace alone; in DVC's cache under the old MD5; everywhere, and recorded so
PLACES = ["workspace", "cache", "record"]


def leave(root: Path, letter: str) -> None:
    """The results of a training and its evaluation in the workspace, and dvc.lock with them."""
    train, evaluate = root / "results" / "train", root / "results" / "evaluate"
    small_model(hidden_size=4).save(train / "model.safetensors")
    times = [f"2026-01-02T03:0{ord(letter) % 10}:{second:02}+00:00" for second in (1, 2, 3)]
    record = replace(
        BEGUN,
        training_id=letter * 32,
        name=letter,
        started=times[0],
        data=BEGUN.data | {"validation": SplitRecord("data/validation", 4, "f" * 64)},
    )
    accuracies = dict.fromkeys(("train_accuracy", "validation_accuracy", "test_accuracy"), 0.5)
    curve = [{"step": step, "epoch": 0, **accuracies, "train_loss": 0.7} for step in (1, 2)]
    gauges = dict.fromkeys(("memory_megabytes", "processor_percent"), 1.5)
    empty = dict.fromkeys(("gpu_memory_megabytes", "gpu_percent"))
    timings = [
        {"step": step, "time": times[1], "seconds": step / 2, **gauges, **empty} for step in (1, 2)
    ]
    about = record.finished(times[1], sha256(train / "model.safetensors"))
    Training(about, curve, timings).write(train)
    judged = {"accuracy": 0.5, "loss": 0.6}
    write_json(evaluate / "metrics.json", {"validation": judged, "test": judged})
    write_rows(evaluate / "classes.csv", [{"class": name, "recall": 0.5} for name in "xy"])
    answers = [(0, 0), (1, 0), (1, 1), (0, 1)]
    write_rows(
        evaluate / "predictions.csv",
        [{"split": "test", "actual": one, "predicted": other} for one, other in answers],
    )
    moment = EvaluationRecord(letter * 32, times[1], times[2], {"evaluate.batch_size": 1})
    write_json(evaluate / "run.json", vars(moment))
    write_lock(root)


@dataclass
class Project:
    """A project with the results of `a`, whole, in DVC's cache, and those of `b`, to be damaged."""

    root: Path
    cached: Callable[[str], str]
    whole: Mapping[str, bytes]

    @staticmethod
    def create(root: Path) -> "Project":
        git.git(root, "init", "--quiet")
        shutil.copy(PROJECT / "recipes" / "quick.yaml", root / "params.yaml")
        Repo.init(str(root)).close()
        with Repo(str(root)) as repo:
            project = Project(root, repo.cache.local.oid_to_path, {})
        leave(root, "a")
        project.put_into_cache()
        runs = root / ".dvc" / "cache" / "runs" / "ab" / "abc"
        runs.mkdir(parents=True)
        for stage, entry in yaml.safe_load((root / "dvc.lock").read_text())["stages"].items():
            (runs / stage).write_text(yaml.safe_dump(entry))
        leave(root, "b")
        project.put_into_cache()
        return replace(project, whole={name: (root / name).read_bytes() for name in FILES})

    def put_into_cache(self) -> None:
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        for entry in lock["stages"].values():
            for out in entry["outs"]:
                cached = Path(self.cached(out["md5"]))
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_bytes((self.root / out["path"]).read_bytes())

    def damage(self, name: str, content: bytes, place: str) -> None:
        if name == "dvc.lock" or place != "cache":
            (self.root / name).write_bytes(content)
        else:
            self.in_cache(name).write_bytes(content)
        if name != "dvc.lock" and place == "record":
            write_lock(self.root)

    def in_cache(self, name: str) -> Path:
        return Path(self.cached(hashlib.md5(self.whole[name]).hexdigest()))

    def mend(self, name: str) -> None:
        for damaged in ("dvc.lock", name):
            (self.root / damaged).write_bytes(self.whole[damaged])
        if name != "dvc.lock":
            self.in_cache(name).write_bytes(self.whole[name])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("damaged"))


def damaged(content: bytes, kind: str, how: object) -> bytes:
    """A content with edits, with another token, with a merge's marks, or nothing."""
    match kind, how:
        case "edit", edits:
            return edited(content, range(len(content)), edits)  # type: ignore[arg-type]
        case "claim", (which, claim):
            return reworded(content.decode(), TOKEN, which, claim).encode("utf-8", "replace")
        case "marks", _:
            start = content[: len(content) // 2].rfind(b"\n") + 1
            return content[:start] + MARKS % (content[start:], content[start:])
    return b""


def serve(root: Path) -> tuple[History, dict[str, str]]:
    """Ask for all that the commands ask for; returns the refusals, by what was asked."""
    history, refusals = History(root), {}

    def ask(what: str, question: Callable[[], object]) -> None:
        try:
            question()
        except UserError as refusal:
            refusals[what] = str(refusal)

    for row in listing.runs(history, []):
        json.dumps(vars(row))
    every = [*history.results, *history.partial]
    for result in every:
        ask("pair", lambda result=result: pair(history, every[0], result))  # type: ignore[misc]
    for result in history.results:
        ask(f"view {result.name}", lambda result=result: view(history, result))  # type: ignore[misc]
    ask("predict", lambda: predictor.of_project(history))
    return history, refusals


def test_what_is_whole_is_served(project: Project) -> None:
    history, refusals = serve(project.root)
    assert [result.name for result in history.results] == ["a", "b"]
    assert history.workspace is history.results[1]
    assert (refusals, history.unreadable, history.mixed) == ({}, [], None)


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_a_damaged_file_is_named_and_everything_else_is_served(
    project: Project, cases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # opening the repository takes longer than all else, and it is the same one
    cache = DvcCache(project.root)
    monkeypatch.setattr(
        DvcCache,
        "__init__",
        lambda self, _, note: self.__dict__.update(vars(cache) | {"_note": note}),
    )
    monkeypatch.setattr(git, "is_repository", lambda _: False)
    monkeypatch.setattr(listing, "reference", lambda _: {})
    outcomes = Counter[str]()

    @fuzz(cases)
    @given(st.sampled_from(FILES), DAMAGE, st.sampled_from(PLACES))
    def check(name: str, damage: tuple[str, Sequence[Edit]], place: str) -> None:
        content = damaged(project.whole[name], *damage)
        project.damage(name, content, place)
        try:
            history, refusals = serve(project.root)
        finally:
            project.mend(name)
        assert history.results[0].name == "a"
        assert history.metrics(history.results[0])["test"] == {"accuracy": 0.5, "loss": 0.6}
        assert "view a" not in refusals
        said = [*history.unreadable, *refusals.values(), history.mixed or ""]
        said = [line.replace(os.path.relpath(project.root), "") for line in said]
        assert not any(odd in line for line in said for odd in ("\n", "/tmp", "\x1b"))
        if place == "cache" and name != "dvc.lock" and content != project.whole[name]:
            assert [result.name for result in history.results] == ["a", "b"]
            assert refusals == {}
        outcomes["left out" if history.unreadable else "mixed" if history.mixed else "served"] += 1

    check()
    assert outcomes.total() >= cases
    assert min(outcomes[kind] for kind in ("left out", "mixed", "served")) >= cases / 20, outcomes


@pytest.mark.parametrize("name", FILES)
def test_a_merge_that_is_not_resolved_in_any_commit(project: Project, name: str) -> None:
    """The commit is in the history, and no file in the workspace has the marks."""
    author = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")
    project.damage(name, damaged(project.whole[name], "marks", None), "record")
    try:
        git.git(project.root, "add", "--force", "dvc.lock", "results")
        git.git(project.root, *author, "commit", "--quiet", "--message", name)
    finally:
        project.mend(name)
    history, refusals = serve(project.root)
    assert {result.name for result in history.results} == {"a", "b"}
    assert refusals == {}
    if name == "dvc.lock":
        commit = git.git(project.root, "rev-parse", "HEAD").decode()[:7]
        assert f"{commit}:dvc.lock: has the marks of an unresolved merge" in history.unreadable
