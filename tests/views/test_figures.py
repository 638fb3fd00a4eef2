import struct
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from answers import DIGITS, answers
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_lstm.views import figures, pictures

CURVE = [
    {
        "step": step,
        "train_accuracy": 1,
        "validation_accuracy": 0.9,
        "test_accuracy": 0.8 + step / 1000,
    }
    for step in (50, 100)
]
READING = [
    {"rows": rows, "validation_accuracy": rows / 10, "test_accuracy": rows / 9}
    for rows in range(1, 9)
]
PUBLISHED = [{"step": 50, "test_accuracy": 0.7}, {"step": 100, "test_accuracy": 0.85}]


def drawn() -> dict[str, Figure]:
    images, labels, beliefs = answers()
    return {
        "curve": figures.accuracy_curve(CURVE, PUBLISHED),
        "several": figures.several_curves({"one": CURVE, "two": CURVE[:1]}, PUBLISHED),
        "reading": figures.accuracy_by_rows(READING),
        "belief": pictures.belief(images, labels, beliefs, DIGITS),
        "confusion": figures.confusion(labels, beliefs[:, -1].argmax(axis=1), DIGITS),
        "mistakes": pictures.confident_mistakes(images, labels, beliefs[:, -1], DIGITS),
        "batch": pictures.batch(
            images[: pictures.BATCH], labels, DIGITS, images[-pictures.BATCH :]
        ),
    }


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of each line, by its label without the number in it."""
    found = figure.axes[0].get_lines()
    return {
        str(line.get_label()).split(":")[0]: [(x, y) for x, y in line.get_xydata().tolist()]
        for line in found
    }


def title(axes: Axes) -> str:
    return axes.get_title("left") or axes.get_title("center")


def test_pictures_are_pngs_to_be_shown_at_800_pixels(tmp_path: Path) -> None:
    for name, figure in drawn().items():
        figures.save(figure, tmp_path / "picture.png")
        content = (tmp_path / "picture.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width == 1600, name
        assert 800 <= height <= 2200, name
        assert 20_000 < len(content) < 400_000, name


def test_several_curves_are_on_both_splits_and_the_published_one_on_test_images() -> None:
    above, below = figures.several_curves({"one": CURVE, "two": CURVE[:1]}, PUBLISHED).axes
    labels = [str(line.get_label()) for line in above.get_lines()]
    assert labels == ["one: 90.00%", "two: 90.00%"]
    labels = [str(line.get_label()) for line in below.get_lines()]
    assert labels == ["one: 90.00%", "two: 85.00%", "published script: 85.00%"]
    assert below.get_lines()[0].get_xydata().tolist() == [
        [row["step"], row["test_accuracy"]] for row in CURVE
    ]
    low, high = below.get_ylim()
    assert low < 0.85
    assert 0.9 < high < 1.01


def test_curves_that_get_worse_are_in_view_and_the_right_way_up() -> None:
    falling = [
        {"step": step, "validation_accuracy": value, "test_accuracy": value}
        for step, value in enumerate((0.5, 0.98, 0.97, 0.3, 0.1))
    ]
    for axes in figures.several_curves({"diverged": falling}).axes:
        low, high = axes.get_ylim()
        assert low < 0.1
        assert high > 0.98


def test_more_curves_than_colours_have_other_line_styles() -> None:
    many = {str(number): CURVE for number in range(14)}
    above, _ = figures.several_curves(many).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in above.get_lines()}
    assert len(looks) == 14


def test_the_same_values_give_the_same_bytes_whatever_a_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures.save(figures.accuracy_by_rows(READING), tmp_path / "one.png")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # as in a user's matplotlibrc
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 50)
    figures.save(figures.accuracy_by_rows(READING), tmp_path / "two.png")
    assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "one.png").read_bytes().lower()


def test_the_curve_is_laid_over_the_published_one_where_there_is_one() -> None:
    with_published, without = (
        figures.accuracy_curve(CURVE, PUBLISHED),
        figures.accuracy_curve(CURVE),
    )
    ours = {
        f"{split} images": [(row["step"], row[f"{split}_accuracy"]) for row in CURVE]
        for split in ("validation", "test")
    }
    ours["batch just trained on"] = [(50, 1), (100, 1)]
    assert lines(without) == ours
    assert lines(with_published) == ours | {
        "published script, test images": [(50, 0.7), (100, 0.85)]
    }
    assert title(without.axes[0]) == "90.00% accuracy on the test images after 100 steps"


def test_accuracy_by_rows_has_a_point_a_row() -> None:
    found = lines(figures.accuracy_by_rows(READING))
    assert found["test images"] == [(row["rows"], row["test_accuracy"]) for row in READING]
    assert len(found["validation images"]) == 8


def test_confusion_counts_actual_and_predicted_classes() -> None:
    actual, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 2, 1, 2])
    figure = figures.confusion(actual, predicted, ("a", "b", "c"))
    (axes,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "2", (2, 0): "1", (1, 1): "1", (2, 2): "1"}  # (column, row)
    assert title(axes) == "1 of 5 test images misclassified"
    (recall,) = axes.child_axes
    assert [tick.get_text() for tick in recall.get_yticklabels()] == ["66.7%", "100.0%", "100.0%"]


def test_a_model_without_mistakes_and_classes_without_images_are_drawn_too(tmp_path: Path) -> None:
    images, labels, _ = answers(images=3)
    perfect = np.eye(10)[labels]
    names = tuple(f"a long name {label}" for label in range(10))
    for figure in (
        pictures.confident_mistakes(images, labels, perfect, names),
        figures.confusion(labels, labels, names),
        pictures.belief(images, labels, perfect[:, None].repeat(8, axis=1), names),
    ):
        figures.save(figure, tmp_path / "picture.png")


def test_class_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    images, labels, beliefs = answers()
    names = ["$x$", r"$\frac$", "a_b^c", "{", "%", *DIGITS[5:]]
    figure = figures.confusion(labels, beliefs[:, -1].argmax(axis=1), names)
    figures.save(figure, tmp_path / "picture.png")
    assert all(not text.get_parse_math() for text in figure.axes[0].get_xticklabels())
    figures.save(pictures.belief(images, labels, beliefs, names), tmp_path / "picture.png")
