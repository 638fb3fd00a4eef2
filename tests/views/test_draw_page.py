"""The page of `mnist-lstm draw`, held to PyTorch and to `predict` in a real browser."""

import base64
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Tab, browser, needs_chromium
from samples import small_model
from sklearn.datasets import load_digits

from mnist_lstm import UserError
from mnist_lstm.data import photo
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.evaluation import read_row_by_row
from mnist_lstm.learning.model import RowLSTM, infer
from mnist_lstm.runs import demonstration
from mnist_lstm.runs.predictor import Predictor
from mnist_lstm.views.draw_page import page

RECIPES: dict[str, dict[str, Any]] = {
    "the reference": {},
    "one layer": {"num_layers": 1},
    "mean pooling": {"pooling": "mean"},
    "columns": {"reads": "columns"},
    "both": {"reads": "both"},
    "two directions": {"directions": "both"},
    "windows of three rows": {"window": 3},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "gru, two directions": {"cell": "gru", "directions": "both", "hidden_size": 11},
    "all of it": {"reads": "both", "directions": "both", "pooling": "mean", "num_layers": 3}
    | {"window": 5},
}
DIGITS = tuple("0123456789")
CANVAS = "(({x, y, width}) => [x, y, width])(canvas.getBoundingClientRect())"
EVIL = (
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=document.title='run'>",
)


def decided(seed: int = 0, rows: int = 8, **settings: Any) -> RowLSTM:
    """A model with random weights, so large that it is sure of what it says."""
    torch.manual_seed(seed)
    size = {"input_size": 8, "num_classes": 10, "hidden_size": 12, "num_rows": rows} | settings
    model = small_model(**size)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.3)
        model.head.weight.mul_(8)
    return model.eval()


def digits(images: int) -> Sequences:
    """Real digits of 8×8 pixels, some of them as test images."""
    found = load_digits()
    pixels = torch.from_numpy((found.images[:images] * 255 / 16).round().astype(np.uint8))
    labels = torch.from_numpy(found.target[:images].astype(np.uint8))
    return Sequences(pixels, labels, 10, "digits", {})


def chosen(
    model: RowLSTM,
    dataset: str = "digits",
    image: tuple[int, int] = (8, 8),
    classes: Sequence[str] = DIGITS,
) -> Predictor:
    return Predictor(model, "a model of the tests", dataset, image, tuple(classes))


def written(folder: Path, *arguments: Any, bits: int = 32, test: Sequences | None = None) -> Path:
    """The page of a model, in a file."""
    path = folder / "draw.html"
    path.write_text(page("Draw", demonstration.data(chosen(*arguments), bits, test)))
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser for all tests here; each opens its own page."""
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def beliefs_of(opened: Tab, images: torch.Tensor) -> np.ndarray:
    """What the page's functions make of images: the belief after each row, (N, T, C)."""
    pixels = json.dumps(images.flatten(1).tolist())
    after_each = "Array.from({length: model.rows}, (_, at) => beliefAfter(at + 1))"
    code = f"{pixels}.map((pixels) => {{ show(pixels); return {after_each} }})"
    return np.array(opened.evaluate(code))


@needs_chromium
@pytest.mark.parametrize("name", RECIPES)
def test_the_page_computes_what_the_model_computes(name: str, opened: Tab, tmp_path: Path) -> None:
    """60 images, after each row; and some that are not square."""
    test = digits(60)
    for rows, images in ((8, test.pixels), (6, test.pixels[:10, 1:7])):
        model = decided(rows=rows, **RECIPES[name])
        opened.open(written(tmp_path, model, "digits", (rows, 8)))
        found = beliefs_of(opened, images)
        assert opened.complaints == []
        expected = read_row_by_row(model, [images]).double().softmax(dim=2).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
        assert (found[:, -1].argmax(axis=1) == expected[:, -1].argmax(axis=1)).all()
        assert np.ptp(expected[:, -1], axis=0).max() > 0.1  # it says different things


@needs_chromium
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "one row"),
        ({"reads": "columns"}, "one column"),
        ({"reads": "both", "window": 5}, "five rows and five columns"),
    ],
)
def test_the_page_says_what_the_model_reads_at_a_time(
    settings: dict[str, Any], expected: str, opened: Tab, tmp_path: Path
) -> None:
    opened.open(written(tmp_path, decided(**settings)))
    said = opened.evaluate("document.querySelector('header p').textContent")
    assert " ".join(said.split()) == (
        f"A neural network with a memory, an LSTM, reads it {expected} of pixels at a time. "
        "Watch its belief move."
    )


@needs_chromium
def test_weights_of_16_bits_are_those_that_numpy_writes(opened: Tab, tmp_path: Path) -> None:
    model, images = decided(), digits(50).pixels
    with torch.no_grad():
        model.head.bias[:4] = torch.tensor([1e-6, -3e-5, 6e-8, 100.0])  # also subnormal numbers
    half = written(tmp_path, model, bits=16)
    assert half.stat().st_size < len(page("Draw", demonstration.data(chosen(model), 32, None)))
    opened.open(half)
    found = beliefs_of(opened, images)[:, -1]
    bias = opened.evaluate("Array.from(model.head.bias)")
    weights = {name: weight.half().float() for name, weight in model.state_dict().items()}
    rounded = RowLSTM(**model.config)
    rounded.load_state_dict(weights)
    expected = infer(rounded, images, 50).double().softmax(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(bias, model.head.bias.detach().half().float().numpy())


def bent(*places: tuple[float, float]) -> list[tuple[float, float]]:
    """A stroke through these places, with places between them."""
    return [
        (a + (c - a) * part / 3, b + (d - b) * part / 3)
        for (a, b), (c, d) in itertools.pairwise(places)
        for part in range(3)
    ] + [places[-1]]


def round_about(x: float, y: float, wide: float, high: float) -> list[tuple[float, float]]:
    turns = [2 * math.pi * part / 14 for part in range(15)]
    return [(x + wide * math.sin(turn), y - high * math.cos(turn)) for turn in turns]


# ten digits, on a paper whose sides are 1
STROKES = {
    0: [round_about(0.5, 0.5, 0.2, 0.32)],
    1: [bent((0.42, 0.3), (0.52, 0.2), (0.5, 0.82))],
    2: [bent((0.3, 0.35), (0.4, 0.2), (0.62, 0.22), (0.64, 0.42), (0.3, 0.8), (0.7, 0.8))],
    3: [
        bent((0.32, 0.22), (0.62, 0.24), (0.6, 0.42), (0.45, 0.48), (0.65, 0.58))
        + bent((0.65, 0.58), (0.6, 0.78), (0.3, 0.8))
    ],
    4: [bent((0.4, 0.2), (0.28, 0.55), (0.72, 0.55)), bent((0.62, 0.3), (0.6, 0.85))],
    5: [
        bent((0.35, 0.22), (0.34, 0.48), (0.58, 0.46), (0.66, 0.62), (0.55, 0.8), (0.3, 0.78)),
        bent((0.44, 0.2), (0.7, 0.2)),  # it touches nothing
    ],
    6: [bent((0.6, 0.18), (0.4, 0.4), (0.36, 0.62)) + round_about(0.5, 0.66, 0.15, 0.16)],
    7: [bent((0.28, 0.22), (0.7, 0.22), (0.48, 0.82))],
    8: [round_about(0.5, 0.33, 0.14, 0.14), round_about(0.5, 0.66, 0.18, 0.18)],
    9: [round_about(0.48, 0.36, 0.16, 0.16), bent((0.64, 0.3), (0.64, 0.5), (0.56, 0.85))],
}
SPECK = [[(0.9, 0.9), (0.905, 0.9)]]  # a touch beside the digit


def draw(opened: Tab, strokes: list[list[tuple[float, float]]], kind: str = "mouse") -> None:
    opened.evaluate("at('clear').click(); scrollTo(0, 0)")
    box = opened.evaluate(CANVAS)
    for stroke in strokes:
        opened.drag([(box[0] + x * box[2], box[1] + y * box[2]) for x, y in stroke], kind)


def exported(opened: Tab, folder: Path) -> Path:
    """The drawing as the page saves it."""
    path = folder / "drawing.png"
    head, data = opened.evaluate("picture()").split(",")
    assert head == "data:image/png;base64"
    path.write_bytes(base64.b64decode(data))
    return path


@needs_chromium
def test_drawings_are_read_as_predict_reads_their_pngs(opened: Tab, tmp_path: Path) -> None:
    """Ten digits alone, and two beside a speck: of one stroke, and of two that do not touch."""
    model = decided(seed=1, input_size=28, rows=28, hidden_size=24)
    opened.open(written(tmp_path, model, "mnist", (28, 28)))
    drawings = [*STROKES.items(), *((digit, STROKES[digit] + SPECK) for digit in (1, 5))]
    for digit, strokes in drawings:
        draw(opened, strokes)
        seen, last = opened.evaluate("[shown.pixels, shown.beliefs.at(-1)]")
        pixels = photo.read(exported(opened, tmp_path), photo.form_of("mnist", 28, 28)).pixels
        difference = np.abs(np.array(seen).reshape(28, 28) - pixels.astype(int))
        assert difference.max() <= 2, digit  # grey levels of 255
        assert (difference > 0).mean() < 0.02, digit
        logits = infer(model, torch.from_numpy(pixels)[None], 1)
        (expected,) = logits.double().softmax(dim=1).numpy()
        np.testing.assert_allclose(last, expected, atol=0.01)
        assert np.argmax(last) == np.argmax(expected)
        opened.evaluate("stop(); goTo(28)")
        assert opened.evaluate("at('class').textContent") == str(np.argmax(expected))
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("kind", ["touch", "pen"])
def test_a_finger_and_a_pen_draw_what_a_mouse_draws(kind: str, opened: Tab, tmp_path: Path) -> None:
    opened.open(written(tmp_path, decided(input_size=28, rows=28), "mnist", (28, 28)), 390)
    drawn = []
    for pointer in ("mouse", kind):
        opened.evaluate(
            "var kinds = new Set(); canvas.onpointermove = (e) => kinds.add(e.pointerType)"
        )
        draw(opened, STROKES[4], pointer)
        assert opened.evaluate("[...kinds]") == [pointer]
        drawn.append(opened.evaluate("[strokes.length, scrollY, shown.pixels]"))
    assert drawn[0][:2] == [2, 0]
    assert drawn[1] == drawn[0]
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize(
    ("dataset", "image"),
    [("digits", (8, 8)), ("kmnist", (28, 28)), ("own", (20, 12)), ("own", (700, 30))],
)
def test_a_drawing_gets_the_form_of_each_data_set(
    dataset: str, image: tuple[int, int], opened: Tab, tmp_path: Path
) -> None:
    opened.open(written(tmp_path, decided(input_size=image[1]), dataset, image))
    draw(opened, STROKES[3])
    seen = opened.evaluate("shown.pixels")
    pixels = photo.read(exported(opened, tmp_path), photo.form_of(dataset, *image)).pixels
    difference = np.abs(np.array(seen).reshape(image) - pixels.astype(int))
    assert difference.max() <= 2


@needs_chromium
def test_buttons_slider_and_keys_do_what_they_say(opened: Tab, tmp_path: Path) -> None:
    model, test = decided(), digits(60)
    opened.open(written(tmp_path, model, test=test))
    named = "[at('class').textContent, at('count').textContent]"
    data = demonstration.data(chosen(model), 32, test)
    wrong = [one for one in data["examples"] if one["mistake"]]
    assert wrong[0]["answer"] != wrong[0]["label"]
    opened.evaluate("document.querySelector('#mistakes button').click(); stop(); goTo(8)")
    assert opened.evaluate(named) == [str(wrong[0]["answer"]), "row 8 of 8"]
    assert "It is labelled" in opened.evaluate("at('words').textContent")

    opened.evaluate("at('row').focus()")
    for kind in ("keyDown", "keyUp"):
        opened.send("Input.dispatchKeyEvent", type=kind, key="Home", windowsVirtualKeyCode=36)
    (first,) = read_row_by_row(model, [test.pixels[wrong[0]["number"]][None]])[:, 0]
    assert opened.evaluate(named) == [str(int(first.argmax())), "row 1 of 8"]

    box = opened.evaluate("(({x, y, height}) => [x, y, height])(seen.getBoundingClientRect())")
    opened.drag([(box[0] + 5, box[1] + box[2] * 0.55)])
    assert opened.evaluate(named)[1] == "row 5 of 8"

    draw(opened, STROKES[0] + STROKES[1])
    assert opened.evaluate("[strokes.length, shown !== null]") == [2, True]
    opened.evaluate("at('undo').click()")
    assert opened.evaluate("[strokes.length, shown !== null]") == [1, True]
    opened.evaluate("at('undo').focus(); at('undo').click()")
    assert opened.evaluate("[strokes.length, shown, at('class').textContent]") == [0, None, "?"]
    assert opened.evaluate("document.activeElement.id") == "clear"  # not on a disabled button

    for taken_back in ("at('undo').click()", "at('clear').click()"):  # while a stroke is drawn
        x, y, width = opened.evaluate(CANVAS)
        places = [(x + width * share, y + width * share) for share in (0.3, 0.5, 0.7)]
        opened.point("mouse", 0, *places[0])
        opened.point("mouse", 1, *places[1])
        assert opened.evaluate(f"{taken_back}; strokes.length") == 0
        opened.point("mouse", 1, *places[2])
        opened.point("mouse", 2, *places[2])
        assert opened.evaluate("strokes.length") == 0
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("settings", [{}, {"reads": "columns"}], ids=["rows", "columns"])
def test_without_motion_the_beliefs_after_all_rows_are_there(
    settings: dict[str, Any], opened: Tab, tmp_path: Path
) -> None:
    opened.open(written(tmp_path, decided(**settings)))
    wish = {"name": "prefers-reduced-motion", "value": "reduce"}
    opened.send("Emulation.setEmulatedMedia", features=[wish])
    pixels = digits(1).pixels.flatten().tolist()
    opened.evaluate(f"show({pixels}); var seen = []; at('live').textContent = ''; null")
    opened.evaluate("var real = goTo; goTo = (...to) => { seen.push(to[0]); real(...to) }; null")
    opened.evaluate(
        "play(); new Promise((function wait(ok) {"
        " at('live').textContent ? ok() : setTimeout(wait, 20, ok) })).then(() => null)"
    )
    assert opened.evaluate("[shown.beliefs.every((one) => one), seen]") == [True, [8]]


@needs_chromium
def test_the_mean_of_a_layer_is_of_its_last_word(opened: Tab, tmp_path: Path) -> None:
    """A layer that reads from the end says it at the first row."""
    opened.open(written(tmp_path, decided(directions="both"), test=digits(60)))
    for direction, line in ((0, 7), (1, 0)):
        opened.evaluate(f"stop(); at('layer').value = '0 0 {direction}'; goTo(8); null")
        said = opened.evaluate(f"Array.from(shown.read[0].layers[0][{direction}][{line}].h)")
        mean = f"mean size {np.abs(said).mean():.2f}"
        assert opened.evaluate("maps.h.mean.textContent") == mean


@needs_chromium
@pytest.mark.parametrize(
    ("images", "served", "way"),
    [
        (0, False, ""),
        (60, False, "choose an image below"),
        (0, True, "choose a picture"),
        (60, True, "choose a picture, or an image below"),
    ],
)
def test_the_empty_page_names_what_there_is_to_choose(
    images: int, served: bool, way: str, opened: Tab, tmp_path: Path
) -> None:
    test = digits(images) if images else None
    path = tmp_path / "draw.html"
    path.write_text(page("Draw", demonstration.data(chosen(decided()), 32, test), served=served))
    opened.open(path)
    opened.evaluate("clear()")
    words, label = opened.evaluate("[at('words').textContent, canvas.getAttribute('aria-label')]")
    assert words == (f"Draw something, or {way}." if way else "Draw something.")
    keys = f" With a keyboard, {way}." if way else ""
    assert label == f"Drawing area for mouse, finger or pen.{keys}"


@needs_chromium
def test_everything_that_can_be_used_has_a_name(opened: Tab, tmp_path: Path) -> None:
    opened.open(written(tmp_path, decided(), test=digits(60)))
    nodes = opened.send("Accessibility.getFullAXTree")["nodes"]
    kinds = {"button", "slider", "combobox", "image", "DisclosureTriangle", "list", "heading"}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in kinds - {"list"} and not node["ignored"]:
            assert node.get("name", {}).get("value"), node
    assert {"button", "slider", "combobox"} <= {node.get("role", {}).get("value") for node in nodes}


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window_and_asks_for_nothing(width: int, opened: Tab, tmp_path: Path) -> None:
    source = Predictor(decided(reads="both"), "long" * 80, "digits", (8, 8), DIGITS)
    (path := tmp_path / "draw.html").write_text(
        page("Draw", demonstration.data(source, 32, digits(60)))
    )
    opened.open(path, width)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert opened.requests == [path.as_uri()]
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("image", [(10, 40), (8, 8), (300, 6)])
def test_beliefs_stand_beside_their_rows(
    image: tuple[int, int], opened: Tab, tmp_path: Path
) -> None:
    model = decided(rows=image[0], input_size=image[1])
    opened.open(written(tmp_path, model, "own", image))
    boxes = "[seen, beliefs].map((one) => one.getBoundingClientRect())"
    left, right = opened.evaluate(f"{boxes}.map(({{width, y, height}}) => [width, y, height])")
    assert left == pytest.approx(right, abs=1)
    height = left[0] * image[0] / image[1]
    assert left[2] == pytest.approx(min(height, 34 * 16), abs=1)


@needs_chromium
def test_hostile_names_are_text_and_the_policy_refuses_other_scripts(
    opened: Tab, tmp_path: Path
) -> None:
    names = (*EVIL, *DIGITS[2:])
    path = tmp_path / "draw.html"
    test = digits(60)
    source = Predictor(decided(), EVIL[0], "digits", (8, 8), names)
    path.write_text(page(EVIL[1], demonstration.data(source, 32, test)))
    opened.open(path)
    assert opened.evaluate("document.title") == f"{EVIL[1]}: an LSTM reads it row by row"
    assert opened.evaluate("document.querySelector('#bars .name').textContent") == EVIL[0]
    assert opened.evaluate("at('source').textContent") == f"The model: {EVIL[0]}."
    assert opened.evaluate("document.querySelectorAll('img').length") == 0
    assert opened.complaints == []
    text = path.read_text()
    for script in ("<script>document.title = 'run'</script>", '<p onclick="1">', EVIL[1]):
        assert text.count("<footer") == 1
        path.write_text(text.replace("<footer", f"{script}<footer"))
        opened.open(path)
        opened.evaluate("document.querySelector('p[onclick]')?.click()")
        assert "run" not in opened.evaluate("document.title").split(":")[0].split("'")[0]
        assert any("Content Security Policy" in line for line in opened.complaints)


def test_what_the_page_cannot_compute_is_refused() -> None:
    other = decided()
    other.layers = torch.nn.ModuleList([torch.nn.Identity()])
    with pytest.raises(UserError, match="layers of the kind Identity,"):
        demonstration.data(chosen(other), 32, None)
    other = decided()
    other.pooling = "attention"
    with pytest.raises(UserError, match="pooling: attention"):
        demonstration.data(chosen(other), 32, None)
    other = decided()
    with torch.no_grad():
        other.head.bias[0] = 1e6
    with pytest.raises(UserError, match="do not fit 16 bits"):
        demonstration.data(chosen(other), 16, None)


@needs_chromium
def test_a_gru_is_called_so_and_its_gates_are_drawn(opened: Tab, tmp_path: Path) -> None:
    opened.open(written(tmp_path, decided(cell="gru"), test=digits(60)))
    assert opened.evaluate("document.title") == "Draw: a GRU reads it row by row"
    assert (
        opened.evaluate("document.querySelector('header p').innerText").count("a GRU, reads") == 1
    )
    assert opened.evaluate("Object.keys(maps)") == ["z", "r", "n", "h"]
    assert opened.complaints == []


def test_the_examples_are_the_same_with_the_answers_of_evaluate() -> None:
    """What predictions.csv says spares the model reading all test images."""
    model, test = decided(), digits(120)
    probabilities, answers = infer(model, test.pixels, 120).double().softmax(dim=1).max(dim=1)
    rows = [
        {"predicted": answer, "probability": f"{probability:.4f}"}
        for answer, probability in zip(answers.tolist(), probabilities.tolist(), strict=True)
    ]
    without, known = (demonstration.data(chosen(model), 32, test, had) for had in ([], rows))
    assert len(known["examples"]) > 10
    for one, other in zip(without["examples"], known["examples"], strict=True):
        assert one.pop("probability") == pytest.approx(other.pop("probability"), abs=1e-6)
        assert one == other
    assert known["test"] == without["test"]


def test_the_examples_are_the_first_of_each_class_and_the_surest_mistakes() -> None:
    model, test = decided(), digits(120)
    data = demonstration.data(chosen(model), 32, test)
    probabilities = infer(model, test.pixels, 120).double().softmax(dim=1)
    answers = probabilities.argmax(dim=1)
    assert data["test"] == {"images": 120, "right": int((answers == test.labels).sum())}
    right = [one for one in data["examples"] if not one["mistake"]]
    for one in right:
        same = (test.labels == one["label"]) & (answers == one["label"])
        assert one["number"] == int(torch.nonzero(same)[0])
    assert len({one["label"] for one in right}) == len(right) > 0
    wrong = [one for one in data["examples"] if one["mistake"]]
    shares = probabilities.amax(dim=1)[answers != test.labels].sort(descending=True).values[:10]
    np.testing.assert_allclose([one["probability"] for one in wrong], shares.numpy())
    assert all(one["answer"] != one["label"] for one in wrong)
    pixels = np.frombuffer(base64.b64decode(wrong[0]["pixels"]), dtype=np.uint8)
    assert (pixels.reshape(8, 8) == test.pixels[wrong[0]["number"]].numpy()).all()
