import json
import re
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from samples import PROJECT
from workspace import pasted

from mnist_lstm import UserError
from mnist_lstm.runs.champions import (
    FILE,
    PENDING,
    is_being_made,
    pending,
    read,
    settle,
    time_after,
    write,
)
from mnist_lstm.tracking.entrant import Decision, Entrant

ENTRANT = Entrant("quick", "a" * 32, "b" * 64, "digits", "d" * 64, 200, 0.94)


def decision(minute: int, what: str = "promotion") -> Decision:
    note = {"at": f"2026-01-02T03:{minute:02}:00.000+00:00", "by": "Ä. Tester", "why": "better"}
    return Decision(what, ENTRANT, note)


def test_decisions_come_back_in_the_order_of_their_times(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    every = [decision(2), decision(1), decision(3, "return")]
    for each in every:
        write(tmp_path, each)
    assert len((tmp_path / FILE).read_text().splitlines()) == 3
    assert read(tmp_path) == [every[1], every[0], every[2]]


def test_a_decision_is_later_than_those_that_are_known() -> None:
    last = "2999-01-02T03:04:05.999+00:00"
    assert time_after([last, "2026-01-02", "", "9999-12-31T23:59:59.999+00:00"]) == (
        "2999-01-02T03:04:06.000+00:00"
    )
    one = time_after([])
    assert one < time_after([one]) < last


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "<<<<<<< HEAD", '{"what": "promotion", "at": "2026"}', '{"what": "x"}'],
)
def test_a_line_that_is_no_decision_is_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, decision(1))
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"champions\.jsonl: line 2 is no decision of `promote`"):
        read(tmp_path)


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"champions\.jsonl: line 1 is no decision of `promote`"):
        read(tmp_path)


def test_a_decision_that_is_being_made_is_left_to_whoever_makes_it(tmp_path: Path) -> None:
    assert not is_being_made(tmp_path)
    settled: list[list[Decision]] = []
    other = threading.Thread(target=lambda: settled.append(settle(tmp_path, lambda _: False)))
    with pending(tmp_path, decision(1), lambda _: False):
        assert is_being_made(tmp_path)
        other.start()
        other.join(0.2)
        assert settled == []
    other.join()
    assert settled == [[]]
    assert read(tmp_path) == [decision(1)]
    assert not is_being_made(tmp_path)
    assert not (tmp_path / PENDING).exists()


def test_a_decision_that_was_interrupted_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    settle(tmp_path, lambda _: True)  # as `promote` begins: nothing is pending yet
    with suppress(KeyboardInterrupt), pending(tmp_path, decision(1), lambda _: True):
        raise KeyboardInterrupt
    told = "champion has changed meanwhile: it is quick, by a promotion that was interrupted"
    with pytest.raises(UserError, match=told), pending(tmp_path, decision(2), lambda _: True):
        pytest.fail("there is a decision that this one does not know")
    assert read(tmp_path) == [decision(1)]
    with suppress(KeyboardInterrupt), pending(tmp_path, decision(2), lambda _: False):
        raise KeyboardInterrupt
    with pending(tmp_path, decision(3), lambda _: False):
        pass  # the other one was not made
    assert read(tmp_path) == [decision(1), decision(3)]


@pytest.mark.parametrize(("ours", "theirs"), [("one", "two"), ("two", "one")])
def test_lines_of_two_people_join_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    (tmp_path / ".gitattributes").write_text((PROJECT / ".gitattributes").read_text())
    for branch, minute in (("main", 1), ("one", 3), ("two", 2)):
        git("checkout", "--quiet", "-B", branch, *(["main"] if branch != "main" else []))
        write(tmp_path, decision(minute))
        git("add", "--all")
        git("commit", "--quiet", "--message", branch)
    git("checkout", "--quiet", ours)
    git("merge", "--quiet", "--no-edit", theirs)
    every = [decision(minute) for minute in (1, 2, 3)]
    assert read(tmp_path) == every
    page = (PROJECT / "docs" / "runs.md").read_text()
    python, log = re.findall(r"(?m)^    (.*champions\.jsonl.*)$", page)
    monkeypatch.chdir(tmp_path)
    assert json.loads(pasted(python))["at"] == every[-1].note["at"]
    added = re.findall(r'(?m)^\+{.*"at": "([^"]+)"', pasted(log))
    assert sorted(added) == [each.note["at"] for each in every]
