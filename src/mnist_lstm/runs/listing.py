"""List all runs as rows of a table; filter them, sort them, find the best."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.pipeline.params import completed, flatten, format_value, short_name, value_at
from mnist_lstm.pipeline.result_files import RunRecord
from mnist_lstm.runs.comparison import CHOOSE_VALIDATION
from mnist_lstm.runs.history import History, Partial, Result
from mnist_lstm.runs.unfinished import Unfinished

# the parts of params.yaml that a training depends on
SECTIONS = ["seed", "fetch", "preprocess", "model", "augment", "train"]
FINISHED, AWAY = "finished", "tables only"
ORDERS = ("started", "name", "validation", "steps", "seconds")


@dataclass(frozen=True)
class Run:
    """A training. `differs` has the parameters that differ from the reference recipe.

    Accuracies and losses are those of the latest evaluation by the stage evaluate. Before the first
    one, the accuracies are the last ones measured during the training.
    """

    name: str
    training_id: str | None
    experiments: Sequence[str]
    commits: Sequence[str]
    dataset: str | None
    params: Mapping[str, Any]
    differs: Mapping[str, Any]
    validation_accuracy: float | None
    validation_loss: float | None
    test_accuracy: float | None
    test_loss: float | None
    steps: int | None
    seconds: float | None
    device: str | None
    started: str | None
    state: str
    user: str | None = None
    host: str | None = None

    @property
    def evaluated(self) -> bool:
        """Whether the stage evaluate measured the accuracies."""
        return self.validation_loss is not None


def runs(
    history: History,
    unfinished: Sequence[Unfinished],
    ended_early: Mapping[str | None, str] = MappingProxyType({}),
) -> list[Run]:
    """All recorded trainings and those that have not ended, the earliest first.

    `ended_early` has the reason for each experiment that a search has ended.
    """
    recipe = reference(history)
    done = {result.record.training_id for result in history.results}
    every = [
        *(of_result(history, result, recipe) for result in history.results),
        *(of_result(history, result, recipe) for result in history.partial),
        *(
            _of_unfinished(training, recipe, ended_early.get(training.record.dvc_experiment))
            for training in unfinished
            if training.record.training_id not in done
        ),
    ]
    return sorted(every, key=_start)


def of_result(history: History, result: Result | Partial, reference: Mapping[str, Any]) -> Run:
    """A result as a row. `reference` has the parameters that it is compared with."""
    metrics = history.metrics(result)
    rows = history.rows(result.training, "curve.csv")
    timings = history.rows(result.training, "timing.csv")
    last = rows[-1] if rows else {}
    accuracies = {split: metrics.get(split, {}).get("accuracy") for split in ("validation", "test")}
    state = FINISHED if metrics else "not evaluated"
    return _run(
        result,
        result.record,
        reference,
        experiments=result.experiments,
        commits=result.commits,
        validation_accuracy=_first(accuracies["validation"], last.get("validation_accuracy")),
        validation_loss=metrics.get("validation", {}).get("loss"),
        test_accuracy=_first(accuracies["test"], last.get("test_accuracy")),
        test_loss=metrics.get("test", {}).get("loss"),
        steps=last.get("step"),
        seconds=timings[-1]["seconds"] if timings else None,
        state=AWAY if isinstance(result, Partial) else state,
    )


def matching(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that meet every condition `KEY=VALUE`. A unique key may be given without section.

    Raises UserError if a text is not a condition, or if no run has such a parameter.
    """
    found = list(runs)
    for condition in conditions:
        name, is_there, text = condition.partition("=")
        if not is_there or not name:
            raise UserError(
                f"--where must be KEY=VALUE, such as train.learning_rate=0.002, is {condition!r}"
            )
        key = _key(runs, name.strip(), "--where")
        found = [run for run in found if key in run.params and _is(run.params[key], text.strip())]
    return found


def ordered(runs: Sequence[Run], by: str) -> list[Run]:
    """Sort runs by a column or a parameter; by validation, the most accurate comes first.

    Raises UserError if there is no such column, and for the test accuracy.
    """
    if by in ("test", "test_accuracy"):
        raise UserError(
            "--sort test would choose a run by the test images, which must only measure how good "
            "the chosen run is; write --sort validation"
        )
    if by == "started":
        return sorted(runs, key=_start)
    if by in ("validation", "validation_accuracy"):  # as --json calls it
        return sorted(runs, key=_goodness)
    if by in ORDERS:
        return sorted(runs, key=lambda run: _sortable(getattr(run, by)))
    key = _key(runs, by, "--sort", ORDERS)
    return sorted(runs, key=lambda run: _sortable(run.params.get(key)))


def at_hand(runs: Sequence[Run], history: History) -> list[Run]:
    """The runs whose model is on this machine, and those of HEAD and the workspace; else all."""
    # a row has the very list of its result, and only by that are two without a commit told apart
    kept = [id(result.commits) for result in (history.head, history.workspace) if result]
    return [run for run in runs if run.state != AWAY or id(run.commits) in kept] or list(runs)


def best(runs: Sequence[Run], number: int) -> list[Run]:
    """The evaluated runs of each data set with the highest validation accuracy, `number` of each.

    Data sets are in the order of their first run. The lower loss decides a tie.
    """
    of_dataset: dict[str | None, list[Run]] = {}
    for run in runs:
        if run.evaluated:
            of_dataset.setdefault(run.dataset, []).append(run)
    return [run for each in of_dataset.values() for run in sorted(each, key=_goodness)[:number]]


def caution(runs: Sequence[Run]) -> str:
    """What to say of accuracies that were measured on different images; empty if they were not."""
    if len({run.dataset for run in runs}) > 1:
        return "Compare accuracies only within one data set: --where dataset=… lists its runs."
    differing = [key for key in CHOOSE_VALIDATION if len({run.params.get(key) for run in runs}) > 1]
    if not differing:
        return ""
    names = " and ".join(map(short_name, differing))
    return f"Compare accuracies only where {names} {'are' if differing[1:] else 'is'} the same."


def _goodness(run: Run) -> tuple[float, float]:
    accuracy = -1.0 if run.validation_accuracy is None else run.validation_accuracy
    return -accuracy, math.inf if run.validation_loss is None else run.validation_loss


def _start(run: Run) -> str:
    """A sort key: a run of which git has only tables has no start, and comes first."""
    return run.started or ""


def _sortable(value: object) -> tuple[bool, float, str]:
    """A sort key: numbers by size, then texts, then None."""
    if isinstance(value, int | float):
        return False, value, ""
    return value is None, math.inf, str(value)


def reference(history: History) -> dict[str, Any]:
    """The parameters of HEAD's params.yaml; of the workspace's if HEAD has none."""
    there = history.root / "params.yaml"
    contents = {
        "HEAD:params.yaml": history.committed("params.yaml"),
        "params.yaml": there.read_bytes() if there.is_file() else b"",
    }
    for name, content in contents.items():
        try:
            tree = strict_yaml.parse(content.decode(), name)
            if content:
                return flatten(completed({key: value_at(tree, key) for key in SECTIONS}))
        except UnicodeDecodeError as error:
            history.leave_out(f"{name}: {error}")
        except UserError as error:
            history.leave_out(str(error))
    return {}


def _of_unfinished(training: Unfinished, reference: Mapping[str, Any], why: str | None) -> Run:
    if training.at_work:
        state = f"training at step {training.progress.step:,}"
    elif why and training.progress.diverged is None:
        state, _, _ = why.partition(",")  # "pruned at step 50, at …"; its checkpoint may be later
    else:
        state = f"stopped at step {training.progress.step:,}"
    last = training.rows[-1] if training.rows else {}
    return _run(
        training.record,
        training.record,
        reference,
        experiments=[],
        commits=[],
        validation_accuracy=last.get("validation_accuracy"),
        validation_loss=None,
        test_accuracy=last.get("test_accuracy"),
        test_loss=None,
        steps=training.progress.step,
        seconds=training.progress.seconds,
        state=state,
    )


def _run(
    training: Result | Partial | RunRecord,
    record: RunRecord | None,
    reference: Mapping[str, Any],
    **measured: Any,
) -> Run:
    params = flatten(training.params)
    return Run(
        name=training.name,
        training_id=record.training_id if record else None,
        dataset=training.dataset,
        params=params,
        differs={k: v for k, v in params.items() if k not in reference or reference[k] != v},
        device=record.device if record else None,
        started=record.started if record else None,
        user=record.user if record else None,
        host=record.host if record else None,
        **measured,
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _key(runs: Sequence[Run], name: str, option: str, others: Sequence[str] = ()) -> str:
    """The dotted key that `name` stands for: the whole key, or its last part if that is unique."""
    known = list(dict.fromkeys(key for run in runs for key in run.params))
    meant = [key for key in known if name in (key, short_name(key))]
    if name in known or len(meant) == 1:
        return name if name in known else meant[0]
    near = meant or list(_near(name, [*others, *known]))
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"known names: {', '.join([*others, *known])}"
    )
    raise UserError(f"{option}: no run has the parameter {name!r}; {hint}")


def _near(name: str, known: Sequence[str]) -> Iterator[str]:
    for key in known:
        parts = (key, short_name(key))
        if difflib.get_close_matches(short_name(name), parts, n=1, cutoff=0.7):
            yield key


def _is(value: object, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == format_value(value)
