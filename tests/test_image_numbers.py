"""The table of training images: only their number changes, and the figure shows each training."""

from samples import PROJECT

from benchmarks.images import ALL, CHOICES, SIZES, STUDY, TITLES, draw
from benchmarks.trainings import params_of
from mnist_lstm.data.datasets import DATASETS
from mnist_lstm.pipeline.params import flatten, load


def test_only_the_number_of_images_changes() -> None:
    chosen = [flatten(params_of(STUDY, name, 0).model_dump()) for name in CHOICES]
    sizes = [each.pop("preprocess.train_size") for each in chosen]
    assert sizes == [*SIZES[:-1], None]
    assert all(each == chosen[0] for each in chosen)
    assert chosen[0]["train.batch_size"] <= min(SIZES)
    assert list(TITLES) == list(CHOICES)


def test_the_largest_number_is_all_of_mnist() -> None:
    recipe = load(PROJECT / STUDY.recipe)
    assert recipe.train_images_of(DATASETS[recipe.fetch.dataset].train_images) == ALL


def test_the_figure_has_a_dot_for_each_training_and_the_means() -> None:
    rows = [
        {"choice": size, "test_accuracy": accuracy}
        for size, accuracies in (("100", ("0.5", "0.7")), ("55000", ("0.98", "0.99")))
        for accuracy in accuracies
    ]
    (axes,) = draw(rows).axes
    mean, dots = axes.lines
    assert [round(error, 6) for error in mean.get_ydata()] == [40, 1.5]
    drawn = zip(dots.get_xdata(), (round(error, 6) for error in dots.get_ydata()), strict=True)
    assert set(drawn) == {(100, 50), (100, 30), (55_000, 2), (55_000, 1)}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    low, high = axes.get_ylim()
    assert low < 1
    assert high > 50


def test_the_accuracy_page_has_the_picture() -> None:
    assert "](images.png)" in (PROJECT / "docs" / "accuracy.md").read_text()
    assert (PROJECT / "docs" / "images.png").is_file()
