"""Measure the accuracy by the number of training images: six numbers, with five seeds each.

Run: dvc repro preprocess && python -m benchmarks.images [NUMBER ...] [OPTION ...]

All trainings have the ingredients of recipes/best.yaml, 3,000 steps and batches of 100 images. A
batch cannot be larger than the number of images to train on, and the smallest number is 100; with
one size for all, only the images differ. Writes benchmarks/images.csv, one row for each training as
soon as it ends, prints the table of docs/accuracy.md and draws docs/images.png. A training that has
a row is not repeated: delete the file if the recipe changes.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from benchmarks import trainings
from benchmarks.studies import HERE, PROJECT, Row, Study
from mnist_lstm.views import figures
from mnist_lstm.views.figures import BLUE, ORANGE, WIDTH

PICTURE = PROJECT / "docs" / "images.png"
COMMON = {"train.batch_size": 100, "train.steps": 3000}
ALL = 55_000  # of MNIST, without the validation images
SIZES = (100, 300, 1000, 3000, 10_000, ALL)
CHOICES: Mapping[str, Mapping[str, object]] = {
    str(size): {"preprocess.train_size": None if size == ALL else size} for size in SIZES
}
TITLES = {name: f"{int(name):,}" for name in CHOICES}
STUDY = Study(
    HERE / "images.csv", "recipes/best.yaml", COMMON, CHOICES, 5, "training images", TITLES
)
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # percent


@figures.styled
def draw(rows: Sequence[Row]) -> Figure:
    """The test error of each training, and their mean, over the number of training images."""
    errors: dict[int, list[float]] = {}
    for row in rows:
        errors.setdefault(int(row["choice"]), []).append(100 * (1 - float(row["test_accuracy"])))
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    sizes = sorted(errors)
    means = [mean(errors[size]) for size in sizes]
    axes.plot(sizes, means, color=BLUE, marker="_", markersize=16, label="mean")
    dots = [(size, error) for size in sizes for error in errors[size]]
    axes.plot(*zip(*dots, strict=True), "o", color=ORANGE, markersize=4, label="one training")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    lowest, highest = (find(error for _, error in dots) for find in (min, max))
    ticks = [tick for tick in TICKS if lowest / 1.5 <= tick <= 1.5 * highest]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.set_ylim(lowest / 1.5, 1.5 * highest)
    axes.set_xlabel("training images")
    axes.set_ylabel("test error (%)")
    axes.set_title("Test error by the number of training images")
    axes.legend()
    return figure


if __name__ == "__main__":
    trainings.main(STUDY)
    figures.save(draw(STUDY.read()), PICTURE)
