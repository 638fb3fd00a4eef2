"""What a report says: the workspace's results beside the committed ones, section by section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.dvc_cache import Files
from mnist_lstm.pipeline.params import flatten, format_value, value_at
from mnist_lstm.pipeline.result_files import Row, read_rows
from mnist_lstm.runs.comparison import cell, differing
from mnist_lstm.runs.history import History, Partial, Result
from mnist_lstm.runs.recorded_files import EVALUATE, TRAIN
from mnist_lstm.views import html_page, markdown_page
from mnist_lstm.views import model_words as words
from mnist_lstm.views.html_page import Picture, Section, Table

METRICS, CURVE = f"{EVALUATE}/metrics.json", f"{TRAIN}/curve.csv"
FIGURES = {  # titles, and the keys in metrics.json
    "validation accuracy": "validation.accuracy",
    "validation loss": "validation.loss",
    "test accuracy": "test.accuracy",
    "test loss": "test.loss",
    "test calibration error": "test.calibration_error",
    "test coverage at 99 % accuracy": "test.coverage_at_99",
    "test accuracy, images shifted": "test.robustness.shifted",
    "test accuracy, images rotated": "test.robustness.rotated",
    "test accuracy, strokes thickened": "test.robustness.thickened",
    "test accuracy, colours inverted": "test.robustness.inverted",
    "test accuracy, images noisy": "test.robustness.noisy",
}


@dataclass(frozen=True)
class Side:
    """One of the two results that the page compares: the workspace's or the committed one."""

    recorded: Result | Partial | None
    metrics: Mapping[str, Any]
    curve: Sequence[Row]

    @property
    def dataset(self) -> str | None:
        """The data set; None if it is not known."""
        return self.recorded.dataset if self.recorded else None

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters; empty if they are not known."""
        return self.recorded.params if self.recorded else {}


@dataclass(frozen=True)
class Report:
    """The two results, and the published curve, which is empty for all data sets but MNIST.

    `committed` is None if HEAD has no results.
    """

    history: History
    here: Side
    committed: Side | None
    published: Sequence[Row]

    @staticmethod
    def read(history: History) -> "Report":
        """Read both results. Raises UserError if those in the workspace are not whole."""
        here = _workspace(history)
        published = read_rows(_published(history.root)) if here.dataset == "mnist" else []
        return Report(history, here, _committed(history), published)

    @property
    def title(self) -> str:
        """The heading of the page."""
        recorded = self.here.recorded
        return f"mnist-lstm: {recorded.name if recorded else 'the workspace'}"

    def html(self) -> str:
        """All of it, as a page that needs no other file."""
        sections = [
            _metrics(self.here, self.committed, self.published),
            _curves(self.here, self.committed, self.published),
            *_evaluation(self.history),
            *_recipe(self.here),
        ]
        return html_page.page(self.title, _introduction(self.here), sections)

    def markdown(self) -> str:
        """Metrics, parameters that differ and the curve, as Markdown for a comment on GitHub."""
        metrics = _metrics(self.here, self.committed, self.published)
        page = markdown_page.page(self.title, _introduction(self.here), [metrics])
        return f"{page}\n{_chart(self.here, self.committed)}"


def _workspace(history: History) -> Side:
    """The results in the workspace. Raises UserError if they are missing or of several runs."""
    if history.mixed:
        raise UserError(history.mixed)
    for path in (CURVE, METRICS):
        if not (history.root / path).is_file():
            raise UserError(f"{history.root / path}: no such file; `dvc repro` makes it")
    if not history.workspace or not history.evaluation:
        raise UserError(
            f"{EVALUATE} is not the evaluation of the training in {TRAIN}; `dvc repro` makes it"
        )
    here = _side(history, history.workspace, history.workspace.training, history.evaluation)
    if not here:
        raise UserError("the results in the workspace are damaged; `dvc repro` makes them again")
    return here


def _committed(history: History) -> Side | None:
    """The results of HEAD; None if HEAD has none."""
    return _side(history, history.head, history.at_head, history.at_head)


def _side(
    history: History, recorded: Result | Partial | None, training: Files, evaluation: Files
) -> Side | None:
    metrics, curve = history.metrics_of(evaluation), history.rows(training, "curve.csv")
    return Side(recorded, metrics, curve) if metrics and curve else None


def _published(root: Path) -> Path:
    """The published curve, which no stage makes. Raises UserError if it was deleted."""
    path = root / "data" / "published_curve.csv"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; `git checkout data/published_curve.csv` restores it"
        )
    return path


def _introduction(here: Side) -> str:
    record = here.recorded.record if here.recorded else None
    if record is None:
        return (
            "This run was made on another machine. Only its small tables, which are in git, are "
            "here."
        )
    changed = ", with changes" if record.dirty else ""
    commit = f"commit {record.commit[:10]}{changed}" if record.commit else "no commit"
    try:
        model = record.params["model"]
        what = f"A dropout {words.cell(model)} that reads {record.dataset} {words.reads(model)}."
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"the parameters of {record.name} are no training's: {error!r}") from None
    return (
        f"{what} It was trained on {record.device} by the code of {commit}; the training ended on "
        f"{_minute(record.ended)}. Its training_id is {record.training_id}."
    )


def _minute(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone(UTC):%d %B %Y, %H:%M} UTC"


def _metrics(here: Side, committed: Side | None, published: Sequence[Row]) -> Section:
    """The table of metrics and the table of the parameters that differ from HEAD."""
    titles = ["", "workspace", *(["committed (HEAD)", "difference"] if committed else [])]
    rows = [titles + ["published script"] * bool(published)]
    for title, key in FIGURES.items():
        row, now = [title], value_at(here.metrics, key)
        before = value_at(committed.metrics, key) if committed else None
        if now is None and before is None:  # earlier versions did not measure it
            continue
        row.append(_format(now, key))
        if committed:
            row += [_format(before, key), _difference(now, before, key)]
        if published:
            final = published[-1]["test_accuracy"]
            row.append(_format(final, key) if key == "test.accuracy" else "")
        rows.append(row)
    steps = ["steps", f"{here.curve[-1]['step']:,}"]
    if committed:
        more = here.curve[-1]["step"] - committed.curve[-1]["step"]
        steps += [f"{committed.curve[-1]['step']:,}", _minus(f"{more:+,}") if more else "0"]
    rows.append(steps + [f"{published[-1]['step']:,}" for _ in published[:1]])
    caption = "Difference: workspace − committed; of percentages in percentage points"
    parts: list[str | Table | Picture] = [
        Table(caption if committed else "The results in the workspace", rows)
    ]
    if committed is None:
        parts.append("HEAD has no results to compare with: commit some results first.")
    elif here.metrics == committed.metrics and here.curve == committed.curve:
        parts.append("The results in the workspace are the committed results.")
    both = [flatten(side.params) for side in (here, committed) if side]
    if committed and all(both) and (keys := differing(both)):
        cells = [[key, *(cell(each, key) for each in both)] for key in keys]
        parts.append(Table("Parameters that differ", [titles[:3], *cells]))
    if committed and here.dataset != committed.dataset:
        parts.append("The two results are of different data sets and cannot be compared.")
    return Section("Metrics", parts)


def _format(value: float | None, key: str) -> str:
    if value is None:
        return "–"
    return f"{value:.5f}" if key.endswith("loss") else f"{value:.2%}"


def _difference(now: float | None, before: float | None, key: str) -> str:
    if now is None or before is None:
        return "–"
    value = now - before
    if not value:
        return "0"
    text = f"{value:+.5f}" if key.endswith("loss") else f"{100 * value:+.2f}"
    return _minus(text)


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _recipe(here: Side) -> list[Section]:
    """All parameters of the results in the workspace; nothing if they are not known."""
    rows = [[key, format_value(value)] for key, value in flatten(here.params).items()]
    table = Table("All parameters of the results in the workspace", [["", "workspace"], *rows])
    return [Section("Recipe", [table])] if rows else []


def _curves(here: Side, committed: Side | None, published: Sequence[Row]) -> Section:
    from mnist_lstm.views import figures

    if committed is None:
        curves = {"workspace": here.curve}
    elif here.curve == committed.curve:
        curves = {"workspace and committed": here.curve}
    else:
        curves = {"workspace": here.curve, "committed (HEAD)": committed.curve}
    ends = [f"{name} {rows[-1]['test_accuracy']:.2%}" for name, rows in curves.items()]
    if published:
        ends.append(f"published script {published[-1]['test_accuracy']:.2%}")
    alt = f"Accuracy over the steps; the last test accuracies are: {', '.join(ends)}"
    return Section("Curves", [Picture(alt, figures.png(figures.several_curves(curves, published)))])


def _chart(here: Side, committed: Side | None) -> str:
    """The curve of the test accuracy, and the committed one if it has the same steps."""
    steps = [row["step"] for row in here.curve]
    lines = {"workspace": here.curve}
    if (
        committed
        and (committed.dataset, [row["step"] for row in committed.curve]) == (here.dataset, steps)
        and committed.curve != here.curve
    ):
        lines["committed (HEAD)"] = committed.curve
    return markdown_page.chart(
        "Accuracy on the test images",
        "step",
        "accuracy (%)",
        steps,
        {name: [100 * row["test_accuracy"] for row in rows] for name, rows in lines.items()},
    )


def _evaluation(history: History) -> list[Section]:
    """The pictures of evaluate: those of its tables are drawn again, the others are read."""
    import numpy as np

    from mnist_lstm.views import figures

    classes, predictions, reading = (
        history.rows(history.evaluation, name)
        for name in ("classes.csv", "predictions.csv", "reading.csv")
    )
    names = [str(row["class"]) for row in classes]
    test = [row for row in predictions if row["split"] == "test"]
    actual, predicted = (np.array([row[key] for row in test]) for key in ("actual", "predicted"))
    if not (names and test and reading) or not set(actual) | set(predicted) <= set(
        range(len(names))
    ):
        raise UserError(f"tables in {EVALUATE} are damaged; `dvc repro` makes them again")
    wrong = int((actual != predicted).sum())
    half = reading[(len(reading) - 1) // 2]
    return [
        Section(
            "Confusion matrix",
            [
                Picture(
                    f"A table of actual and predicted classes: {wrong:,} of {len(test):,} test "
                    "images are misclassified",
                    figures.png(figures.confusion(actual, predicted, names)),
                )
            ],
        ),
        Section(
            "Accuracy after each row",
            [
                Picture(
                    f"Accuracy by rows read: {half['test_accuracy']:.2%} of the test images after "
                    f"{half['rows']} of {len(reading)} rows, {reading[-1]['test_accuracy']:.2%} "
                    "after the last",
                    figures.png(figures.accuracy_by_rows(reading)),
                )
            ],
        ),
        _saved(
            history,
            "belief.png",
            "The answer after each row",
            "The probabilities of the classes"
            " after each row, for the first test image of each class",
        ),
        _saved(
            history,
            "mistakes.png",
            "The most confident mistakes",
            "The misclassified test images with the highest confidence",
        ),
    ]


def _saved(history: History, name: str, heading: str, alt: str) -> Section:
    """A picture as evaluate drew it, since the images are not among its tables."""

    content = history.content(history.evaluation, name)
    away = (
        "This picture is not here: it is in DVC's cache on the machine that drew it. `dvc repro` "
        "draws it again."
    )
    return Section(heading, [Picture(alt, content) if content else away])
