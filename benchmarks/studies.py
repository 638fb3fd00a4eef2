"""A study: variations of a recipe, with several seeds each; its file of rows, and its table."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically

HERE = Path(__file__).parent
PROJECT = HERE.parent
SEQUENCES = PROJECT / "data" / "sequences"
# accuracies are fractions, losses mean cross-entropies in nats; a loss and the seconds are empty
# where they were not measured
COLUMNS = (
    "choice",
    "seed",
    "validation_accuracy",
    "test_accuracy",
    "validation_loss",
    "test_loss",
    "model_sha256",
    "seconds",
    "device",
    "precision",
)
Row = Mapping[str, str]


@dataclass(frozen=True)
class Study:
    """Choices, each of which changes some values of a recipe, and how many seeds each has.

    `recipe` is a path in the project. `common` are the changes that all choices have. `file` gets
    the rows. In the table, the column of the choices has the `heading`, and each choice its title;
    without `titles`, its name.
    """

    file: Path
    recipe: str
    common: Mapping[str, object]
    choices: Mapping[str, Mapping[str, object]]
    seeds: int
    heading: str
    titles: Mapping[str, str] | None = None
    sequences: Path = SEQUENCES

    def table(self) -> str:
        """The table of docs/accuracy.md, from the file."""
        titles = self.titles or {name: name for name in self.choices}
        return table(self.read(), self.heading, titles)

    def read(self) -> list[Row]:
        """The rows of the file. Raises UserError if they are not of this study."""
        if not self.file.exists():
            return []
        with self.file.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        anew = "delete the file to measure it anew"
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{self.file}: its columns must be {', '.join(COLUMNS)}; {anew}")
        for row in rows:
            if row["choice"] not in self.choices:
                raise UserError(f"{self.file}: {row['choice']} is no choice any more; {anew}")
        return list(rows)

    def write(self, rows: Iterable[Row]) -> None:
        """Write the file, in the order of the choices and seeds."""
        order = list(self.choices)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        sort_key = lambda row: (order.index(row["choice"]), int(row["seed"]))  # noqa: E731
        writer.writerows(sorted(rows, key=sort_key))
        write_atomically(self.file, text.getvalue().encode())


def table(rows: Sequence[Row], heading: str, titles: Mapping[str, str]) -> str:
    """Mean ± standard deviation over the seeds of each choice that has rows, in Markdown.

    Accuracies are in percent, their deviations in points, losses in nats. `titles` has a text for
    each choice. There is no column of losses if a row has none.
    """
    has_losses = all(row["validation_loss"] for row in rows)
    columns = [heading, "validation images", "test images", *["validation loss"] * has_losses]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, title in titles.items():
        if group := [row for row in rows if row["choice"] == name]:
            figures = [format_accuracy(group, split) for split in ("validation", "test")]
            if has_losses:
                figures.append(format_loss(group))
            lines.append(f"| {title} | {' | '.join(figures)} |")
    return "\n".join(lines)


def format_accuracy(rows: Iterable[Row], split: str) -> str:
    """Mean and standard deviation, in points, over the seeds."""
    figures = [float(row[f"{split}_accuracy"]) for row in rows]
    return f"{mean(figures):.2%}" + (f" ± {100 * stdev(figures):.2f}" if len(figures) > 1 else "")


def format_loss(rows: Iterable[Row]) -> str:
    """Mean and standard deviation of the validation loss over the seeds."""
    figures = [float(row["validation_loss"]) for row in rows]
    return f"{mean(figures):.4f}" + (f" ± {stdev(figures):.4f}" if len(figures) > 1 else "")
