from collections.abc import Callable

import numpy as np
import pytest
from answers import DIGITS, answers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_lstm.views import pictures

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker")
FASHION += ("Bag", "Ankle boot")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def images_at(figure: Figure) -> list[tuple[np.ndarray, float, float]]:
    """Each image of a sheet, with its left and upper edge in inches."""
    (sheet,) = figure.axes
    found = [(np.asarray(image.get_array()), image.get_extent()) for image in sheet.images]
    return [(pixels, left, top) for pixels, (left, _, _, top) in found]


def test_mistakes_are_sorted_by_confidence_with_both_classes() -> None:
    images, labels, beliefs = answers()
    probabilities = beliefs[:, -1]
    figure = pictures.confident_mistakes(images, labels, probabilities, DIGITS)
    wrong = [i for i in range(len(labels)) if probabilities[i].argmax() != labels[i]]
    surest = sorted(wrong, key=lambda i: -probabilities[i].max())[:18]
    assert texts(figure) == [
        f"{labels[i]} read as {probabilities[i].argmax()}\n{probabilities[i].max():.2%} sure"
        for i in surest
    ]
    for (shown, *_), index in zip(images_at(figure), surest, strict=True):
        assert np.array_equal(shown, images[index])


def test_a_batch_shows_each_image_below_its_class_and_above_its_distorted_form() -> None:
    images, labels, _ = answers()
    plain, distorted = images[:14], images[14:28]
    alone = pictures.batch(plain, labels, DIGITS, None)
    assert len(images_at(alone)) == 14
    assert texts(alone) == [str(label) for label in labels[:14]]
    shown = images_at(pictures.batch(plain, labels, DIGITS, distorted))
    assert len(shown) == 28
    for index in range(14):
        (above, left, top), (below, beneath, lower) = shown[2 * index : 2 * index + 2]
        assert np.array_equal(above, plain[index])
        assert np.array_equal(below, distorted[index])
        assert left == beneath
        assert top < lower


def test_belief_shows_the_first_image_of_each_class_and_every_row() -> None:
    images, labels, beliefs = answers()
    figure = pictures.belief(images, labels, beliefs, DIGITS)
    shown, words = images_at(figure), texts(figure)
    for digit in range(10):
        (image, *_), (shades, *_) = shown[2 * digit : 2 * digit + 2]
        assert np.array_equal(image, images[digit])
        assert np.array_equal(shades, beliefs[digit])
        answer = beliefs[digit, -1].argmax()
        read = f"answer: {answer} ({beliefs[digit, -1, answer]:.0%})"
        assert (read if answer == digit else f"{read}: wrong") in words
    assert words.count("row") == 10
    assert any("wrong" in word for word in words)


def test_an_image_without_a_label_is_never_called_wrong() -> None:
    images, _, beliefs = answers()
    words = texts(pictures.belief_of_one("seven.jpg", images[0], beliefs[0], DIGITS))
    assert not any("wrong" in word for word in words)
    assert sum("answer: " in word for word in words) == 1


@pytest.mark.parametrize("classes", [DIGITS, FASHION])
@pytest.mark.parametrize(
    "draw",
    [
        lambda images, labels, beliefs, classes: pictures.belief(images, labels, beliefs, classes),
        lambda images, labels, beliefs, classes: pictures.belief_of_one(
            "a.png", images[0], beliefs[0], classes
        ),
        lambda images, labels, beliefs, classes: pictures.confident_mistakes(
            images, labels, beliefs[:, -1], classes
        ),
        lambda images, labels, beliefs, classes: pictures.batch(
            images[:36], labels, classes, images[:36]
        ),
    ],
)
def test_no_text_runs_into_another_or_over_the_edge(
    draw: Callable[..., Figure], classes: tuple[str, ...]
) -> None:
    figure = draw(*answers(), classes)
    (sheet,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()  # else each text would make its own
    boxes = [text.get_window_extent(renderer) for text in [*sheet.texts, sheet._left_title]]
    whole = figure.bbox
    for number, box in enumerate(boxes):
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1
        assert not any(box.overlaps(other) for other in boxes[:number])
