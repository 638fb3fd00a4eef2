"""What `draw` puts into its page: a model's weights, and test images as examples.

N images, T rows as time steps, D pixels a row, H hidden size, C classes
"""

import base64
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.data import photo
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import RowLSTM, infer
from mnist_lstm.runs.predictor import Predictor

FIRST, MISTAKES = 20, 10  # examples at most: the first images of as many classes, and mistakes
BITS = {16: "<f2", 32: "<f4"}


def data(chosen: Predictor, bits: int, test: Sequences | None) -> dict[str, Any]:
    """What the page needs, in JSON's types. Weights have 16 or 32 bits.

    Raises UserError if the page cannot compute the model.
    """
    return {
        "model": _model(chosen, bits),
        "form": _form(chosen),
        "classes": list(chosen.classes),
        "source": chosen.source,
        **(_examples(chosen.model, test) if test else {"examples": [], "test": None}),
    }


def as_in_the_page(model: RowLSTM, bits: int) -> RowLSTM:
    """A copy of the model with the weights that the page has."""
    copy = RowLSTM(**model.config)
    kind = {16: torch.float16, 32: torch.float32}[bits]
    weights = {name: weight.to(kind).float() for name, weight in model.state_dict().items()}
    copy.load_state_dict(weights)
    return copy


def _form(chosen: Predictor) -> dict[str, Any]:
    form = dataclasses.asdict(photo.form_of(chosen.dataset, *chosen.image))
    return form | {"columns": form.pop("pixels")}


def _model(chosen: Predictor, bits: int) -> dict[str, Any]:
    """The model's sizes, and its weights in the order in which lstm.js takes them."""
    model = chosen.model
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
        raise UserError(_unknown(f"pooling: {model.pooling}"))
    weights += [model.head.weight, model.head.bias]
    numbers = torch.cat([weight.detach().flatten() for weight in weights]).numpy()
    with np.errstate(over="ignore"):
        packed = numbers.astype(BITS[bits])
    if not np.isfinite(packed).all():
        raise UserError(f"the model's weights do not fit {bits} bits; leave --float16 out")
    return {
        "rows": chosen.image[0],
        "columns": chosen.image[1],
        "pooling": model.pooling,
        "directions": 2 if model.directions == "both" else 1,
        "stacks": sizes,
        "head": {"inputs": model.head.in_features, "classes": model.head.out_features},
        "bits": bits,
        "weights": _base64(packed),
    }


def _layer(layer: nn.Module, weights: list[Tensor]) -> list[dict[str, int]]:
    """The sizes of a layer, for each direction; its weights go to the end of `weights`."""
    if not isinstance(layer, nn.LSTM):
        raise UserError(_unknown(f"layers of the kind {type(layer).__name__}"))
    for w_ih, w_hh, b_ih, b_hh in layer.all_weights:  # torch's order of the gates: i, f, g, o
        weights += [w_ih, w_hh, b_ih + b_hh]
    return [{"inputs": w_ih.shape[1], "units": layer.hidden_size} for w_ih, *_ in layer.all_weights]


def _unknown(what: str) -> str:
    return f"the page has no {what}, which the model has; name another model with --run or --model"


def _examples(model: RowLSTM, test: Sequences) -> dict[str, Any]:
    """The first test image of each class that is read right, and the surest mistakes."""
    probabilities = infer(model, test.pixels, 1000).double().softmax(dim=1)  # (N, C)
    answers, labels = probabilities.argmax(dim=1), test.labels.long()
    right = [
        int(found[0])
        for label in range(min(test.num_classes, FIRST))
        if len(found := torch.nonzero((labels == label) & (answers == label))[:, 0])
    ]
    certainty = probabilities.amax(dim=1).masked_fill(answers == labels, -1)
    surest = certainty.argsort(descending=True, stable=True)[:MISTAKES].tolist()
    wrong = [number for number in surest if certainty[number] >= 0]
    return {
        "test": {"images": len(test), "right": int((answers == labels).sum())},
        "examples": [
            {
                "number": number,
                "label": int(labels[number]),
                "answer": int(answers[number]),
                "probability": float(probabilities[number].max()),
                "mistake": number in wrong,
                "pixels": _base64(test.pixels[number].numpy()),
            }
            for number in (*right, *wrong)
        ],
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
