"""Which model becomes the champion, by the validation images alone."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from samples import FINISHED, drawn

from mnist_lstm import UserError
from mnist_lstm.files import sha256
from mnist_lstm.pipeline.result_files import SplitRecord
from mnist_lstm.runs.history import History, Result
from mnist_lstm.runs.promotion import decide, entrant_of, have_the_same_images
from mnist_lstm.tracking.entrant import Entrant

CHAMPION = Entrant("old", "a" * 32, "1" * 64, "digits", "d" * 64, 200, 0.94)


def challenger(accuracy: float, **other: Any) -> Entrant:
    named = replace(CHAMPION, name="new", training_id="b" * 32, model_sha256="2" * 64)
    return replace(named, validation_accuracy=accuracy, **other)


@pytest.mark.parametrize(
    ("accuracy", "margin", "promotes"),
    [
        (0.95, 0.0, True),
        (0.945, 0.0, True),
        (0.94, 0.0, False),  # an equal accuracy is not better
        (0.955, 0.01, True),
        (0.95, 0.01, False),  # by the margin is not by more; 0.95 - 0.94 > 0.01 of floats
        (0.93, 0.0, False),
    ],
)
def test_it_must_be_better_by_more_than_the_margin(
    accuracy: float, margin: float, promotes: bool
) -> None:
    decision = decide(challenger(accuracy), CHAMPION, margin, same_images=True)
    assert decision.promotes == promotes
    assert challenger(accuracy).summary in decision.why
    assert "94.00% (188 of 200)" in decision.why
    assert f"promote.margin ({margin:g})" in decision.why


def test_without_a_champion_any_model_is_promoted() -> None:
    assert decide(challenger(0.1), None, 0.5, same_images=False).promotes


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"dataset": "mnist"}, "are those of digits, not mnist"),
        ({}, "are those of digits too, but of a different validation split"),
    ],
)
def test_other_validation_images_do_not_compare(other: dict[str, str], words: str) -> None:
    decision = decide(challenger(1.0, **other), CHAMPION, 0, same_images=False)
    assert not decision.promotes
    assert words in decision.why
    assert "94.00%" in decision.why
    assert "100.00%" in decision.why


@pytest.mark.parametrize(
    ("dataset", "other", "are_the_same"),
    [
        ("drawn", {}, True),
        ("drawn", {"train_size": 7}, True),
        ("drawn", {"split_seed": 3}, False),
        ("drawn", {"validation_size": 3}, False),
        ("own", {"train_size": 7}, False),  # they may have changed meanwhile
    ],
)
def test_a_file_of_the_same_images_may_have_another_digest(
    tmp_path: Path, dataset: str, other: dict[str, int], are_the_same: bool
) -> None:
    """Preprocess writes its parameters into each file, as here; MLflow has them as texts."""
    settings: dict[str, int | None] = {"validation_size": 4, "split_seed": None}
    digests = []
    for about in (settings, settings | other):
        path = tmp_path / f"{len(digests)}.safetensors"
        replace(drawn(4, seed=0), preprocess=about).save(path)
        digests.append(sha256(path))
    champion = replace(CHAMPION, dataset=dataset, validation_sha256=digests[0])
    record = replace(
        FINISHED,
        dataset=dataset,
        data={"validation": SplitRecord("file", 4, digests[1])},
        params={"preprocess": settings | other},
    )
    params = {f"preprocess.{key}": str(value) for key, value in settings.items()}
    assert (digests[0] == digests[1]) == (not other)
    assert have_the_same_images(Result(record, {}), champion, params) == are_the_same
    # without the champion's run, the files alone say it
    assert have_the_same_images(Result(record, {}), champion, {}) == (not other)


def test_images_of_another_digest_and_the_same_parameters_are_others() -> None:
    other = replace(CHAMPION, validation_sha256="e" * 64)
    assert have_the_same_images(RESULT, CHAMPION, {})
    assert not have_the_same_images(RESULT, other, {})


class Measured(History):
    """A history with these metrics."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        self._metrics = metrics

    def metrics(self, result: Result) -> dict[str, Any]:
        return self._metrics


RESULT = Result(
    replace(
        FINISHED,
        name="new",
        training_id="b" * 32,
        model_sha256="2" * 64,
        dataset="digits",
        data={"validation": SplitRecord("file", 200, "d" * 64)},
    ),
    {},
)


def test_the_accuracy_on_test_images_is_not_used() -> None:
    of = [
        entrant_of(
            Measured({"validation": {"accuracy": 0.96}, "test": {"accuracy": accuracy}}), RESULT
        )
        for accuracy in (0.0, 1.0)
    ]
    assert of[0] == of[1] == challenger(0.96)
    assert not any("test" in entry.name for entry in fields(Entrant))


def test_a_run_that_was_not_evaluated_is_refused() -> None:
    with pytest.raises(UserError, match="new has not been evaluated; run `dvc repro`"):
        entrant_of(Measured({}), RESULT)


def test_a_record_without_validation_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "__init__", lambda _: None)
    monkeypatch.setattr(History, "metrics", lambda *_: {"validation": {"accuracy": 0.9}})
    record = replace(FINISHED, data={})
    with pytest.raises(UserError, match=r"^drawn: data\.validation is missing in its run\.json; "):
        entrant_of(History(), Result(record, {}))  # type: ignore[call-arg]
