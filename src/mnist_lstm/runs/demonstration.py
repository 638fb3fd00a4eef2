"""What the page to draw in gets: a model's weights, and test images as examples.

N images, T rows as time steps, D pixels a row, H hidden size, C classes
"""

import base64
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.data import photo
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import RowLSTM, infer

if TYPE_CHECKING:  # a server of an exported model has no history
    from mnist_lstm.pipeline.result_files import Row
    from mnist_lstm.runs.history import History
    from mnist_lstm.runs.predictor import Predictor

FIRST, MISTAKES = 20, 10  # examples at most: the first images of as many classes, and mistakes
TRIED = 3  # images of a class that are tried for the first one that is read right
TEST = Path("data", "sequences", "test.safetensors")
BITS = {16: "<f2", 32: "<f4"}
CELLS = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn"}
# what the page computes a RowLSTM from; a model in its place may lack some of it
PARTS = ("layers", "beside", "head", "reads", "pooling", "directions", "window")


class Unknown(UserError):
    """The page cannot compute a model, for this reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; name another model with --run or --model")


def title(chosen: "Predictor") -> str:
    """The title of the page."""
    return "Draw a digit" if chosen.dataset in ("mnist", "digits") else "Draw an image"


def test_images(root: Path, chosen: "Predictor") -> Sequences | str:
    """The test images of the workspace, if they are of the data set that the model was made for.

    Otherwise the reason why there are none, as the end of a sentence.
    """
    if not (root / TEST).is_file():
        return "are not here; `dvc repro preprocess` makes them"
    test = Sequences.load(root / TEST)
    known = test.dataset, tuple(test.pixels.shape[1:]), test.num_classes
    if known != (chosen.dataset, chosen.image, len(chosen.classes)):
        return "here are not of the model's data set and size"
    return test


def predictions(history: "History", chosen: "Predictor", test: Sequences) -> "list[Row]":
    """What predictions.csv has of the model's answers to these test images, in their order.

    It is empty if the file is not here, or is about other images.
    """
    evaluations = chosen.result.evaluations if chosen.result else ()
    rows = history.rows(evaluations[-1], "predictions.csv") if evaluations else []
    rows = [row for row in rows if row["split"] == "test" and "probability" in row]
    same = [row["actual"] for row in rows] == test.labels.tolist()
    return rows if same else []


def data(
    chosen: "Predictor", bits: int, test: Sequences | None, known: "Sequence[Row]" = ()
) -> dict[str, Any]:
    """What the page needs, in JSON's types. Weights have 16 or 32 bits.

    `known` has what `predictions` returns: without it, the model reads all test images. Raises
    Unknown if the page cannot compute the model, and UserError if its weights do not fit the bits.
    """
    return {
        "model": _model(chosen, bits),
        "form": dataclasses.asdict(photo.form_of(chosen.dataset, *chosen.image)),
        "classes": list(chosen.classes),
        "source": chosen.source,
        **(_examples(chosen.model, test, known) if test else {"examples": [], "test": None}),
    }


def _model(chosen: "Predictor", bits: int) -> dict[str, Any]:
    """The model's sizes, and its weights in the order in which lstm.js takes them."""
    model = chosen.model
    for part in PARTS:
        if not hasattr(model, part):
            raise Unknown(f"the model has no {part}, of which the page makes an LSTM")
    cell = _cell(model)
    stacks: list[tuple[str, Iterable[nn.Module]]]
    if model.reads == "both":
        stacks = [("rows", model.layers), ("columns", model.beside)]
    else:
        stacks = [(model.reads, model.layers)]
    weights: list[Tensor] = []
    sizes = [
        {"reads": reads, "layers": [_layer(layer, weights) for layer in layers]}
        for reads, layers in stacks
    ]
    if model.pooling not in ("last", "mean"):
        raise _added(f"pooling: {model.pooling}")
    weights += [model.head.weight, model.head.bias]
    numbers = torch.cat([weight.detach().flatten() for weight in weights]).numpy()
    with np.errstate(over="ignore"):
        packed = numbers.astype(BITS[bits])
    if not np.isfinite(packed).all():
        raise UserError(f"the model's weights do not fit {bits} bits; leave --float16 out")
    return {
        "rows": chosen.image[0],
        "columns": chosen.image[1],
        "cell": cell,
        "pooling": model.pooling,
        "directions": 2 if model.directions == "both" else 1,
        "window": model.window,
        "stacks": sizes,
        "head": {"inputs": model.head.in_features, "classes": model.head.out_features},
        "bits": bits,
        "weights": _base64(packed),
    }


def _cell(model: RowLSTM) -> str:
    kinds = {type(layer) for layer in (*model.layers, *model.beside)}
    for kind in kinds - CELLS.keys():
        raise _added(f"layers of the kind {kind.__name__}")
    (kind,) = kinds
    return CELLS[kind]


def _layer(layer: Any, weights: list[Tensor]) -> list[dict[str, int]]:
    """The sizes of a layer, for each direction; its weights go to the end of `weights`."""
    for w_ih, w_hh, b_ih, b_hh in layer.all_weights:  # each in torch's order of the gates
        # a GRU's candidate has its second bias inside of the reset gate
        weights += [w_ih, w_hh, *([b_ih, b_hh] if isinstance(layer, nn.GRU) else [b_ih + b_hh])]
    return [{"inputs": w_ih.shape[1], "units": layer.hidden_size} for w_ih, *_ in layer.all_weights]


def _added(what: str) -> Unknown:
    return Unknown(f"the page has no {what}, which the model has")


def _examples(model: RowLSTM, test: Sequences, known: "Sequence[Row]") -> dict[str, Any]:
    """The first test image of each class that is read right, and the surest mistakes."""
    labels = test.labels.long()
    said, shares = _known(known) if known else _read(model, test.pixels)
    correct = int((said == labels).sum())
    numbers = torch.tensor(_candidates(labels, said, shares))
    # what is shown is what the model says here: a file rounds, and may be of another machine
    found, sure = _read(model, test.pixels[numbers]) if known else (said[numbers], shares[numbers])
    right: dict[int, int] = {}
    wrong = []
    for at, number in enumerate(numbers.tolist()):
        label = int(labels[number])
        if int(found[at]) != label:
            wrong.append(at)
        elif label not in right and label < FIRST:
            right[label] = at
    wrong.sort(key=lambda at: (-float(sure[at]), int(numbers[at])))
    wrong = wrong[:MISTAKES]
    return {
        "test": {"images": len(test), "right": correct},
        "examples": [
            {
                "number": int(numbers[at]),
                "label": int(labels[numbers[at]]),
                "answer": int(found[at]),
                "probability": float(sure[at]),
                "mistake": at in wrong,
                "pixels": _base64(test.pixels[numbers[at]].numpy()),
            }
            for at in (*(right[label] for label in sorted(right)), *wrong)
        ],
    }


def _read(model: RowLSTM, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The model's answers and their probabilities: (N, T, D) -> (N,), (N,)."""
    probabilities, answers = infer(model, pixels, 1000).double().softmax(dim=1).max(dim=1)
    return answers, probabilities


def _known(rows: "Sequence[Row]") -> tuple[Tensor, Tensor]:
    """The same, from predictions.csv."""
    probabilities = torch.tensor([float(row["probability"]) for row in rows]).double()
    return torch.tensor([row["predicted"] for row in rows]), probabilities


def _candidates(labels: Tensor, answers: Tensor, probabilities: Tensor) -> list[int]:
    """The numbers of the images that may become examples, in order."""
    mistakes = answers != labels
    certainty = probabilities.masked_fill(~mistakes, -1)
    surest = certainty.sort(descending=True, stable=True).values[:MISTAKES]
    kept = mistakes & (certainty >= surest[-1])  # with all that are as sure as the last
    numbers = set(torch.nonzero(kept)[: 10 * MISTAKES, 0].tolist())
    for label in labels.unique().tolist():
        same = torch.nonzero((labels == label) & ~mistakes)
        numbers |= set(same[:TRIED, 0].tolist())
    return sorted(numbers)


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
