"""RowLSTM, a dropout LSTM that reads an image a pixel row at a time: fused, and unrolled by hand.

B batch, T rows as time steps, D pixels a row, H hidden size, C classes
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically


def fused(layer: nn.LSTM, x: Tensor) -> Tensor:
    """One LSTM layer over all time steps at once: (B, T, D) -> outputs (B, T, H)."""
    outputs, _ = layer(x)
    return outputs


def unrolled(layer: nn.LSTM, x: Tensor) -> Tensor:
    """The same layer, a time step after another: (B, T, D) -> outputs (B, T, H).

    Hochreiter and Schmidhuber (1997) with forget gates (Gers et al., 2000):
    c' = f·c + i·g, h' = o·tanh(c').
    """
    h = x.new_zeros(x.shape[0], layer.hidden_size)  # (B, H)
    c = torch.zeros_like(h)  # (B, H)
    outputs = []
    w_ih, w_hh, b_ih, b_hh = layer.all_weights[0]
    for row in x.unbind(dim=1):  # (B, D)
        gates = F.linear(row, w_ih, b_ih) + F.linear(h, w_hh, b_hh)  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def dropout(x: Tensor, fraction: float) -> Tensor:
    """Zero a random `fraction` of the elements and scale up the rest, so that the mean stays.

    Unlike F.dropout's, the mask does not depend on how `x` lies in memory, so that it is the same
    for both implementations (cuDNN and oneDNN hand back time-major outputs). It is cut from random
    64-bit words, 16 bits an element: 0.8 ms for (128, 28, 256) where `bernoulli_` takes 11 of a
    160 ms CPU step. So `fraction` is taken to the next of 65,536 parts.
    """
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)  # all 64 bits
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)  # -32,768 … 32,767
    kept = draws >= round(fraction * 2**16) - 2**15
    return x * (kept / (1 - fraction)).to(x.dtype)


IMPLEMENTATIONS = {"fused": fused, "unrolled": unrolled}


class RowLSTM(nn.Module):
    """LSTM layers with dropout after each, and a linear layer on the last time step's output.

    As in the reference: dropout acts on every layer's output, the top one's included, with a new
    mask at each time step, and never on the recurrent state; gates have one bias. `dropout` is the
    fraction dropped. Initial weights come from torch's default generator.

    The layers compute in `precision`, float32 unless it is set to bfloat16; weights and the linear
    layer are float32.
    """

    precision = "float32"

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
    ) -> None:
        super().__init__()
        self.config = {
            "input_size": input_size,
            "num_classes": num_classes,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "dropout": dropout,
            "forget_bias": forget_bias,
            "implementation": implementation,
        }
        self.dropout = dropout
        self.run_layer = IMPLEMENTATIONS[implementation]
        sizes = [input_size, *[hidden_size] * (num_layers - 1)]
        lstms = [nn.LSTM(size, hidden_size, batch_first=True) for size in sizes]
        self.layers: Iterable[nn.LSTM] = nn.ModuleList(lstms)  # type: ignore[assignment]
        self.head = nn.Linear(hidden_size, num_classes)
        self._initialise(forget_bias)

    @torch.no_grad()
    def _initialise(self, forget_bias: float) -> None:
        for layer in self.layers:
            w_ih, w_hh, b_ih, b_hh = layer.all_weights[0]
            # Glorot and Bengio (2010), over the joint [input; hidden] kernel
            bound = (6 / (layer.input_size + layer.hidden_size + 4 * layer.hidden_size)) ** 0.5
            nn.init.uniform_(w_ih, -bound, bound)
            nn.init.uniform_(w_hh, -bound, bound)
            nn.init.zeros_(b_ih).chunk(4)[1].fill_(forget_bias)  # torch's order: i, f, g, o
            # nn.LSTM has a second bias; with two, Adam would move their sum twice as fast
            nn.init.zeros_(b_hh).requires_grad_(False)
        nn.init.trunc_normal_(self.head.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.constant_(self.head.bias, 0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels as IDX has them, 0–255 (B, T, D), any number type -> logits (B, C)."""
        logits: Tensor = self.head(self.outputs(pixels)[:, -1])
        return logits

    def outputs(self, pixels: Tensor) -> Tensor:
        """The top layer's output at each time step: pixels (B, T, D) -> (B, T, H)."""
        y = pixels.to(self.head.weight.dtype) / 255  # (B, T, D)
        with self._computing_in_precision():
            for layer in self.layers:
                y = self.run_layer(layer, y)  # (B, T, H)
                if self.training and self.dropout:
                    y = dropout(y, self.dropout)
        return y.to(self.head.weight.dtype)

    def _computing_in_precision(self) -> AbstractContextManager[object]:
        if self.precision == "bfloat16":
            return torch.autocast(self.head.weight.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def save(self, path: Path) -> None:
        """Write weights and configuration as a safetensors file, whole or not at all."""
        weights = {name: weight.cpu().contiguous() for name, weight in self.state_dict().items()}
        # one key: the order of several is not the same in each file that safetensors writes
        write_atomically(path, save(weights, {"model": json.dumps(self.config)}))

    @staticmethod
    def load(path: Path) -> "RowLSTM":
        """Read what `save` wrote, onto the CPU. Raises UserError where a file is anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                config, weights = json.loads(file.metadata()["model"]), file.get_tensors()
            if 4 * config["num_layers"] + 2 != len(weights):
                raise ValueError(f"{len(weights)} weights are not those of its configuration")
            with torch.device("meta"):  # where sizes take no memory, whatever the file claims
                expected = RowLSTM(**config).state_dict()
            if others := _kinds(expected).items() ^ _kinds(weights).items():
                name, _ = min(others)
                raise ValueError(f"its {name} is not that of its configuration")
            model = RowLSTM(**config)
            model.load_state_dict(weights)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; `dvc repro train` makes it") from None
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: not a model as train writes it ({reason}); "
                "`dvc repro --force train` makes it anew"
            ) from None
        return model


def _kinds(weights: Mapping[str, Tensor]) -> dict[str, tuple[str, torch.Size]]:
    return {name: (str(weight.dtype), weight.shape) for name, weight in weights.items()}


class Classifier(nn.Module):
    """A model with softmax on top, for use outside of training: pixels (B, T, D) -> (B, C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixels)
        return logits.softmax(dim=1)


@torch.inference_mode()
def infer(model: nn.Module, pixels: Tensor, batch_size: int) -> Tensor:
    """Logits of a model in evaluation mode, `batch_size` images at once: (N, T, D) -> (N, C)."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in torch.split(pixels, batch_size)])
    model.train(was_training)
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of images whose largest logit is at their label: (N, C), (N,) -> 0–1."""
    return int((logits.argmax(dim=1) == labels).sum()) / len(labels)
