"""RowLSTM: a dropout LSTM, GRU or RNN that reads an image one pixel row at a time.

B batch, T rows as time steps, D pixels a row, H hidden size, C classes, R directions
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.learning.layers import CELLS, IMPLEMENTATIONS, dropout, fused, kept, windows

# what safetensors, json and torch raise for a file that is no model
_NO_MODEL = (
    *(SafetensorError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError),
    RuntimeError,  # RecursionError too
)
# settings that the reference does not have. With these values, they are not written to a model file
BEYOND = {
    "num_rows": None,
    "reads": "rows",
    "directions": "forward",
    "pooling": "last",
    "recurrent_init": "uniform",
    "cell": "lstm",
    "window": 1,
}

# the settings that have a few values only
CHOICES = {
    "implementation": tuple(IMPLEMENTATIONS),
    "reads": ("rows", "columns", "both"),
    "directions": ("forward", "both"),
    "pooling": ("last", "mean"),
    "recurrent_init": ("uniform", "orthogonal"),
    "cell": tuple(CELLS),
    "window": (1, 3, 5, 7),
}


class RowLSTM(nn.Module):
    """LSTM layers with dropout after each, and a linear layer on the last time step's output.

    As in the reference: dropout acts on every layer's output, the top one's included, with a new
    mask at each time step, and never on the recurrent state; gates have one bias. `dropout` is the
    fraction dropped. Initial weights come from torch's default generator.

    Beyond the reference: the model `reads` rows, columns or both. Columns need `num_rows`, the
    pixels of a column. With both, rows and columns have layers of their own, and the linear layer
    gets the outputs of the two. At each time step, the lowest layer reads a `window` of rows or
    columns: an odd number of them, with the step's own in the middle. `directions` is forward, or
    both for bidirectional layers. `pooling` is last, the output at the last time step (the first
    one for a backward direction), or mean, over all time steps. `recurrent_init` is uniform, as for
    all other weights, or orthogonal for each gate (Saxe et al., 2014). `cell` is lstm; or gru, or
    rnn (with tanh), whose gates also have one bias each, zero at first: only an LSTM has forget
    gates.

    The layers compute in `precision`: float32 by default, or bfloat16. Weights and the linear layer
    are always float32. If `wavefront` is set, the layers train as a wavefront, which needs
    `can_be_a_wavefront` and a GPU for which `wavefront.works` returns True.

    If `part` is set, the model computes only that part of a batch while it trains: `part` returns
    the slice for a number of images (learning/group.py).
    """

    precision = "float32"
    wavefront = False
    part: Callable[[int], slice] | None = None

    def __init__(
        self,
        *,
        input_size: int,
        num_classes: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        forget_bias: float,
        implementation: str,
        num_rows: int | None = None,
        reads: str = "rows",
        directions: str = "forward",
        pooling: str = "last",
        recurrent_init: str = "uniform",
        cell: str = "lstm",
        window: int = 1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "input_size": input_size,
            "num_classes": num_classes,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "dropout": dropout,
            "forget_bias": forget_bias,
            "implementation": implementation,
        }
        beyond = {
            "num_rows": num_rows if reads != "rows" else None,
            "reads": reads,
            "directions": directions,
            "pooling": pooling,
            "recurrent_init": recurrent_init,
            "cell": cell,
            "window": window,
        }
        self.config |= {name: value for name, value in beyond.items() if value != BEYOND[name]}
        self.dropout = dropout
        self.run_layer = IMPLEMENTATIONS[implementation]
        self.reads, self.directions, self.pooling = reads, directions, pooling
        self.window = window

        two_ways = directions == "both"
        outputs = hidden_size * (1 + two_ways)

        def stack(size: int) -> Iterable[nn.RNNBase]:
            sizes = [window * size, *[outputs] * (num_layers - 1)]
            return nn.ModuleList(  # type: ignore[return-value]
                CELLS[cell](n, hidden_size, batch_first=True, bidirectional=two_ways) for n in sizes
            )

        pixels_of_column = input_size if num_rows is None else num_rows
        self.layers = stack(pixels_of_column if reads == "columns" else input_size)
        self.beside = stack(pixels_of_column) if reads == "both" else ()  # reads the columns
        self.head = nn.Linear(outputs * (1 + (reads == "both")), num_classes)
        self._initialise(forget_bias, recurrent_init)

    @torch.no_grad()
    def _initialise(self, forget_bias: float, recurrent_init: str) -> None:
        for layer in (*self.layers, *self.beside):
            gates = layer.all_weights[0][1].shape[0] // layer.hidden_size
            # Glorot and Bengio (2010), over the joint [input; hidden] kernel
            bound = (6 / (layer.input_size + layer.hidden_size + gates * layer.hidden_size)) ** 0.5
            for w_ih, w_hh, b_ih, b_hh in layer.all_weights:  # one entry for each direction
                nn.init.uniform_(w_ih, -bound, bound)
                if recurrent_init == "orthogonal":
                    for gate in w_hh.chunk(gates):
                        nn.init.orthogonal_(gate)
                else:
                    nn.init.uniform_(w_hh, -bound, bound)
                nn.init.zeros_(b_ih)
                if isinstance(layer, nn.LSTM):
                    b_ih.chunk(4)[1].fill_(forget_bias)  # torch's order: i, f, g, o
                # torch has a second bias; with two, Adam would move their sum twice as fast
                nn.init.zeros_(b_hh).requires_grad_(False)
        nn.init.trunc_normal_(self.head.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.constant_(self.head.bias, 0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels 0–255 of any number type (B, T, D) -> logits (B, C), or those of its part."""
        return self._classified(self._outputs(pixels))

    @property
    def is_causal(self) -> bool:
        """Whether the answer after some rows is independent of the rows below them."""
        return self.reads == "rows" and self.directions == "forward" and self.window == 1

    def after_each_row(self, pixels: Tensor) -> Tensor:
        """The logits after 1, 2, … T rows: (B, T, D) -> (B, T, C).

        A causal model (`is_causal`) computes them in one pass. Any other model computes T passes,
        over images whose unread rows are blank.
        """
        if not self.is_causal:
            return torch.stack([self(part) for part in _with_rows_blank(pixels)], dim=1)
        (outputs,) = self._outputs(pixels)
        rows = range(1, pixels.shape[1] + 1)
        return torch.stack([self._classified([outputs[:, :read]]) for read in rows], dim=1)

    @property
    def can_be_a_wavefront(self) -> bool:
        """Whether each layer needs only past steps of the layer below, and stacks are alike."""
        rows = self.config.get("num_rows") if self.reads == "both" else None
        return (
            self.directions == "forward"
            and self.run_layer is fused
            and "cell" not in self.config
            and rows in (None, self.config["input_size"])
        )

    def _outputs(self, pixels: Tensor) -> list[Tensor]:
        """The top layer's outputs, of the rows, the columns or both: (B, T, D) -> (B, T, R·H)."""
        share = None
        if self.part and self.training:
            share = len(pixels), self.part(len(pixels))
            pixels = pixels[share[1]]
        x = pixels.to(self.head.weight.dtype) / 255  # (B, T, D)
        lines = {"rows": [x], "columns": [x.mT], "both": [x, x.mT]}[self.reads]
        lines = [windows(each, self.window) for each in lines]
        if self.wavefront and self.training:
            return self._wavefront(lines)
        with self._computing_in_precision():
            stacks = (self.layers, self.beside)
            return [self._read(*each, share) for each in zip(stacks, lines, strict=False)]

    def _wavefront(self, lines: Sequence[Tensor]) -> list[Tensor]:
        """The top layers' outputs, computed by the wavefront kernels: (B, T, D) -> (B, T, H)."""
        from mnist_lstm.learning import wavefront  # imports Triton, which exists only for Linux

        layers = [layer for stack in (self.layers, self.beside) for layer in stack]
        batch, steps, _ = lines[0].shape
        size = (len(layers), steps, batch, layers[0].hidden_size)
        mask = kept(size, self.dropout, lines[0].device) if self.dropout else None
        outputs = wavefront.run(
            torch.stack([each.transpose(0, 1) for each in lines]),  # (S, T, B, D)
            [layer.all_weights[0][:3] for layer in layers],
            mask,
            self.dropout,
        )
        return list(outputs.transpose(1, 2).unbind())

    def _read(
        self, layers: Iterable[nn.RNNBase], y: Tensor, share: tuple[int, slice] | None
    ) -> Tensor:
        """The top layer's outputs: (B, T, D) -> (B, T, R·H)."""
        for layer in layers:
            y = self.run_layer(layer, y)  # (B, T, R·H)
            if self.training and self.dropout:
                y = dropout(y, self.dropout, share)
        return y

    def _classified(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits from the outputs of one or two stacks of layers: (B, T, R·H) each -> (B, C)."""
        pooled = torch.cat([self._pooled(y) for y in outputs], dim=1)
        logits: Tensor = self.head(pooled.to(self.head.weight.dtype))
        return logits

    def _pooled(self, y: Tensor) -> Tensor:
        """Pool the outputs over the time steps: (B, T, R·H) -> (B, R·H)."""
        if self.pooling == "mean":
            return y.mean(dim=1)
        if self.directions == "forward":
            return y[:, -1]
        forward, backward = y.chunk(2, dim=2)
        return torch.cat([forward[:, -1], backward[:, 0]], dim=1)

    def _computing_in_precision(self) -> AbstractContextManager[object]:
        if self.precision == "bfloat16":
            return torch.autocast(self.head.weight.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def save(self, path: Path) -> None:
        """Write weights and configuration atomically, as a safetensors file."""
        weights = {name: weight.cpu().contiguous() for name, weight in self.state_dict().items()}
        # one key only: safetensors writes several keys in an order that varies
        write_atomically(path, save(weights, {"model": json.dumps(self.config)}))

    @staticmethod
    def load(path: Path) -> "RowLSTM":
        """Load a file that `save` wrote, onto the CPU. Raises UserError for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                config, weights = json.loads(file.metadata()["model"]), file.get_tensors()
            for key, values in CHOICES.items():
                if config.get(key, values[0]) not in values:
                    raise ValueError(f"its {key} is {json.dumps(config[key])[:60]}")
            if config["num_layers"] > len(weights):  # a huge number would take long to build
                raise ValueError(f"{len(weights)} weights are not those of its configuration")
            with torch.device("meta"):  # takes no memory, whatever sizes the file claims
                expected = RowLSTM(**config).state_dict()
            if others := _kinds(expected).items() ^ _kinds(weights).items():
                name, _ = min(others)
                raise ValueError(f"its {name} is not that of its configuration")
            model = RowLSTM(**config)
            model.load_state_dict(weights)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; `dvc repro train` makes it") from None
        except _NO_MODEL as error:
            # a RuntimeError of torch may go on with a page of its own stack
            reason = " ".join(str(error).partition("Exception raised from")[0].split())
            raise UserError(
                f"{path}: not a model as train writes it ({reason}); "
                "`dvc repro --force train` makes it anew"
            ) from None
        return model


def _with_rows_blank(pixels: Tensor) -> Iterator[Tensor]:
    """Yield T copies of the images (B, T, D), with all but the first 1, 2, … T rows blank."""
    for read in range(1, pixels.shape[1] + 1):
        part = pixels.clone()
        part[:, read:] = 0
        yield part


def _kinds(weights: Mapping[str, Tensor]) -> dict[str, tuple[str, torch.Size]]:
    return {name: (str(weight.dtype), weight.shape) for name, weight in weights.items()}


class Classifier(nn.Module):
    """A model with softmax on top, for inference: pixels (B, T, D) -> probabilities (B, C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixels)
        return logits.softmax(dim=1)


@torch.inference_mode()
def infer(model: nn.Module, pixels: Tensor, batch_size: int) -> Tensor:
    """Compute logits in evaluation mode, `batch_size` images at once: (N, T, D) -> (N, C)."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in torch.split(pixels, batch_size)])
    model.train(was_training)
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of images whose largest logit is that of their label: (N, C), (N,) -> 0–1."""
    return int((logits.argmax(dim=1) == labels).sum()) / len(labels)
