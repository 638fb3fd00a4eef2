import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from samples import BEGUN, FINISHED

from mnist_lstm import UserError
from mnist_lstm.learning.fit import Evaluation
from mnist_lstm.pipeline.result_files import (
    TABLES,
    EvaluationRecord,
    FinishedRecord,
    FinishedTraining,
    Progress,
    RunRecord,
    Training,
    parse_evaluation,
    parse_metrics,
    parse_rows,
    parse_run,
    read_json,
    read_rows,
    row,
    write_json,
    write_rows,
)
from mnist_lstm.pipeline.timing import Timing

MEASURED = Evaluation(50, 0, 1 / 3, 2 / 3, 1.0, 1e-17)
TIMING = Timing(50, "2026-01-02T03:04:05.678+00:00", 1.5, 200.0, 99.9, None, None)


def test_a_training_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    training = FinishedTraining(FINISHED, [row(MEASURED)], [row(TIMING)])
    training.write(tmp_path)
    assert FinishedTraining.read(tmp_path) == training
    assert training.step == 50


def test_the_curve_has_the_columns_it_is_known_for(tmp_path: Path) -> None:
    write_rows(tmp_path / "curve.csv", [row(MEASURED)])
    assert (tmp_path / "curve.csv").read_text() == (
        "step,epoch,train_accuracy,validation_accuracy,test_accuracy,train_loss\n"
        "50,0,0.3333333333333333,0.6666666666666666,1.0,1e-17\n"
    )


def test_a_training_without_evaluations_is_at_step_0() -> None:
    assert Training(BEGUN).step == 0


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_rows):
        with pytest.raises(UserError, match=r"gone: no such file; `dvc repro` makes it"):
            read(tmp_path / "gone")
    write_json(tmp_path / "torn", {"a": 1})
    (tmp_path / "torn").write_text((tmp_path / "torn").read_text()[:-4])
    with pytest.raises(UserError, match="torn: not readable as JSON"):
        read_json(tmp_path / "torn")


def test_a_training_comes_back_from_a_checkpoint() -> None:
    training = Training(BEGUN, [row(MEASURED)], [row(TIMING)])
    state = json.loads(json.dumps(training.as_state()))
    assert Training.from_state(state, "a checkpoint") == training
    with pytest.raises(UserError, match=r"a checkpoint: about\.training_id is missing"):
        Training.from_state(state | {"about": {}}, "a checkpoint")


def test_progress_comes_back_from_a_checkpoint_and_only_whole() -> None:
    training = Training(BEGUN, [row(MEASURED)], [row(TIMING)])
    for progress in (Progress(training.step, 1.5, training), Progress(9999, 2, training, "NaN")):
        state = json.loads(json.dumps(progress.as_state()))
        assert Progress.from_state(state, "it") == progress
    whole = Progress(training.step, 1.5, training).as_state()
    for key, said in (("step", "step"), ("seconds", "seconds"), ("record", "it")):
        part = {name: value for name, value in whole.items() if name != key}
        with pytest.raises(UserError, match=rf"^it: {said} must be .*, is null; it is damaged"):
            Progress.from_state(part, "it")
    for step, rows in ((training.step - 1, [row(TIMING)]), (training.step, [])):
        other = Progress(step, 1.5, Training(BEGUN, training.rows, rows)).as_state()
        with pytest.raises(UserError, match="its rows are not those of step"):
            Progress.from_state(other, "it")


def test_keys_of_run_json_are_in_the_order_of_the_fields() -> None:
    keys = list(FINISHED.as_json())
    assert keys[:3] == ["training_id", "name", "started"]
    assert keys[-4:] == ["patch", "ended", "model_sha256", "best_sha256"]
    assert FINISHED.as_json()["image"] == [8, 8]
    assert FINISHED.as_json()["data"]["test"] == {
        "file": "data/test",
        "images": 10,
        "sha256": "e" * 64,
    }


@pytest.mark.parametrize("patch", [b"plain", b"caf\xe9 \xf0\x9f\x98\x80\r\n", bytes(range(256))])
def test_a_patch_keeps_its_bytes(tmp_path: Path, patch: bytes) -> None:
    record = replace(FINISHED, patch=patch.decode(errors="surrogateescape"))
    FinishedTraining(record, [row(MEASURED)], [row(TIMING)]).write(tmp_path)
    assert FinishedTraining.read(tmp_path).about.patch_bytes == patch
    (tmp_path / "run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("name", None, "name must be text, is null"),
        ("name", "a\x1b[2J", r'name must be text without control characters, is "a\\u001b\[2J"'),
        ("params", {"a\n": 1}, r'a key of params must be text without .*, is "a\\n"'),
        ("params", {"a": [{"b": "\x9b"}]}, r'params.a must be text without .*, is "\\u009b"'),
        ("params", {"seed": 10**400}, "params.seed is too large, 10{50,}…"),
        ("threads", 2**53, "threads is too large, 9007199254740992"),
        ("started", "yesterday", 'started must be a time in ISO 8601, is "yesterday"'),
        ("ended", "0001-01-01T00:00:00", 'ended must be a time in ISO 8601, is "0001-.*"'),
        ("threads", "2", 'threads must be a whole number, is "2"'),
        ("threads", True, "threads must be a whole number, is true"),
        ("threads", 2.0, "threads must be a whole number, is 2.0"),
        ("dirty", 1, "dirty must be true or false, is 1"),
        ("commit", 7, "commit must be text, is 7"),
        ("image", [8], r"image must be a list of 2, is \[8\]"),
        ("image", ["8", 8], 'image must be a whole number, is "8"'),
        ("data", [], r"data must be an object, is \[\]"),
        ("data", {"test": {"file": "f", "images": 1}}, "data.test.sha256 is missing"),
        ("versions", {"torch": 2}, "versions.torch must be text, is 2"),
        ("model_sha256", None, "model_sha256 must be text, is null"),
    ],
)
def test_a_field_of_another_type_is_named(key: str, value: Any, reason: str) -> None:
    content = json.dumps(FINISHED.as_json() | {key: value}).encode()
    with pytest.raises(UserError, match=f"^run.json: {reason}; it is damaged, or of another"):
        parse_run(content, "run.json")


# fields that records of earlier versions do not have
ADDED = ("wait_policy", "user", "host", "folder", "best_sha256")


@pytest.mark.parametrize("key", [key for key in FINISHED.as_json() if key not in ADDED])
def test_a_field_that_is_missing_is_named(key: str) -> None:
    fields = {name: value for name, value in FINISHED.as_json().items() if name != key}
    with pytest.raises(UserError, match=f"run.json: {key} is missing"):
        parse_run(json.dumps(fields).encode(), "run.json")


def test_the_record_of_an_earlier_version_is_read_and_equal() -> None:
    fields = {key: value for key, value in FINISHED.as_json().items() if key not in ADDED}
    assert parse_run(json.dumps(fields).encode(), "run.json") == FINISHED


@pytest.mark.parametrize("content", [b"", b"[1", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"run.json: not readable as JSON"):
        parse_run(content, "run.json")


@pytest.mark.parametrize("content", [b"[]", b"1", b'"x"', b"null"])
def test_json_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^run.json: it must be an object, is "):
        parse_run(content, "run.json")


def test_marks_of_a_merge_are_said() -> None:
    marks = b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n"
    for parse in (parse_run, parse_metrics, partial(parse_rows, columns={})):
        with pytest.raises(UserError, match=r"^a file: has the marks of an unresolved merge$"):
            parse(marks, "a file")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"step\n1\nx\n", 'line 3: step must be a whole number, is "x"'),
        (b"step\n1.5\n", "line 2: step must be a whole number, is 1.5"),
        (b"step,a\n1,2\n1\n", "line 3: it has another number of fields than the first line"),
        (b"step\n1,2\n", "line 2: it has another number of fields than the first line"),
        (b"a\n1\n", "line 2: step is missing"),
        (b"step\n\xff\n", "'utf-8' codec can't decode"),
        (b"step\n" + b"9" * 20 + b"\n", "line 2: step is too large"),
        (b'step\n"' + b"1" * 200_000, "line 1: field larger than field limit"),
    ],
)
def test_a_table_that_is_damaged_says_where(content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=f"^a.csv: {re.escape(reason)}.*; it is damaged, or of"):
        parse_rows(content, "a.csv", {"step": int})


def test_names_that_look_like_numbers_stay_names() -> None:
    rows = parse_rows(b"class,recall\n01,1\n1e3,0.5\n", "classes.csv", TABLES["classes.csv"])
    assert rows == [{"class": "01", "recall": 1}, {"class": "1e3", "recall": 0.5}]


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"test": {"loss": 1}}, "test.accuracy must be a number, is null"),
        ({"test": {"accuracy": "1"}}, 'test.accuracy must be a number, is "1"'),
        ({"test": {"accuracy": 1, "recall": {"0": [1]}}}, "test.recall.0 must be a number, is [1]"),
        ({"test": []}, "test must be an object, is []"),
    ],
)
def test_metrics_are_numbers(metrics: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"^metrics.json: {re.escape(reason)}; it is damaged"):
        parse_metrics(json.dumps(metrics).encode(), "metrics.json")


def test_other_keys_are_ignored_and_optional_ones_may_be_null() -> None:
    fields = FINISHED.as_json() | {"commit": None, "later": 1}
    assert parse_run(json.dumps(fields).encode(), "run.json") == replace(FINISHED, commit=None)


def test_the_record_of_an_evaluation() -> None:
    record = EvaluationRecord("a", "2026-01-02", "2026-01-03", {"evaluate.batch_size": 1})
    assert parse_evaluation(json.dumps(vars(record)).encode(), "run.json") == record
    with pytest.raises(UserError, match=r"run.json: ended is missing"):
        parse_evaluation(b'{"training_id": "a", "started": "then"}', "run.json")


def test_a_finished_record_is_that_of_its_start() -> None:
    assert FinishedRecord.from_json(FINISHED.as_json(), "") == FINISHED
    assert RunRecord.from_json(FINISHED.as_json(), "") == BEGUN
