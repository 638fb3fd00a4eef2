"""What RowLSTM is made of: layers over the time steps, their inputs, and dropout.

B batch, T rows as time steps, D pixels a row, H hidden size, R directions
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fused(layer: nn.RNNBase, x: Tensor) -> Tensor:
    """One layer over all time steps at once: (B, T, D) -> outputs (B, T, R·H)."""
    outputs, _ = layer(x)
    return outputs


def unrolled(layer: nn.RNNBase, x: Tensor) -> Tensor:
    """The same layer, one time step after another: (B, T, D) -> outputs (B, T, R·H)."""
    one_way = {nn.LSTM: _lstm, nn.GRU: _gru, nn.RNN: _rnn}[type(layer)]
    forward, *backward = layer.all_weights
    read = one_way(forward, x)
    for weights in backward:
        read = torch.cat([read, one_way(weights, x.flip(1)).flip(1)], dim=2)
    return read


def _lstm(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """One direction: (B, T, D) -> outputs (B, T, H).

    Hochreiter and Schmidhuber (1997) with forget gates (Gers et al., 2000):
    c' = f·c + i·g, h' = o·tanh(c').
    """
    w_ih, w_hh, b_ih, b_hh = weights
    h = x.new_zeros(x.shape[0], w_hh.shape[1])  # (B, H)
    c = torch.zeros_like(h)  # (B, H)
    outputs = []
    for row in x.unbind(dim=1):  # (B, D)
        gates = F.linear(row, w_ih, b_ih) + F.linear(h, w_hh, b_hh)  # (B, 4H)
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def _gru(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """One direction: (B, T, D) -> outputs (B, T, H).

    Cho et al. (2014), in cuDNN's form: n = tanh(Wx + r·Uh), h' = (1 - z)·n + z·h.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    h = x.new_zeros(x.shape[0], w_hh.shape[1])  # (B, H)
    outputs = []
    for row in x.unbind(dim=1):  # (B, D)
        of_row, of_h = F.linear(row, w_ih, b_ih), F.linear(h, w_hh, b_hh)  # (B, 3H) each
        r, z, n = of_row.chunk(3, dim=1)
        h_r, h_z, h_n = of_h.chunk(3, dim=1)
        z = (z + h_z).sigmoid()
        h = (1 - z) * (n + (r + h_r).sigmoid() * h_n).tanh() + z * h
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def _rnn(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """One direction: (B, T, D) -> outputs (B, T, H). Elman (1990): h' = tanh(Wx + Uh)."""
    w_ih, w_hh, b_ih, b_hh = weights
    h = x.new_zeros(x.shape[0], w_hh.shape[1])  # (B, H)
    outputs = []
    for row in x.unbind(dim=1):  # (B, D)
        h = (F.linear(row, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def windows(x: Tensor, size: int) -> Tensor:
    """At each time step, `size` steps with that one in the middle: (B, T, D) -> (B, T, size·D).

    `size` is odd. Before the first step and after the last one there are zeros.
    """
    if size == 1:
        return x
    steps = x.shape[1]
    padded = F.pad(x, (0, 0, size // 2, size // 2))
    return torch.cat([padded[:, first : first + steps] for first in range(size)], dim=2)


def dropout(x: Tensor, fraction: float, share: tuple[int, slice] | None = None) -> Tensor:
    """Zero a random `fraction` of the elements and scale up the rest, so that the mean stays.

    The mean stays only if the fraction is a multiple of 1/65,536, as `kept` rounds it; otherwise it
    changes a little: by up to 0.08 % for a fraction of 0.99.

    If `x` is only a share of a batch, `share` is the number of images in the whole batch and the
    slice of them that `x` has. The mask is drawn for the whole batch.

    Unlike F.dropout's mask, this one does not depend on the memory layout of `x`, so both
    implementations get the same mask (cuDNN and oneDNN return time-major outputs).
    """
    images, part = share or (len(x), slice(None))
    mask = kept((images, *x.shape[1:]), fraction, x.device)[part]
    return x * (mask / (1 - fraction)).to(x.dtype)


def kept(shape: Sequence[int], fraction: float, device: torch.device) -> Tensor:
    """A random mask, False for the `fraction` of the elements that dropout zeroes.

    The mask uses random 64-bit words, 16 bits for each element. For (128, 28, 256) this takes
    0.8 ms; `bernoulli_` takes 11 ms of a 160 ms CPU step. `fraction` is rounded to a multiple of
    1/65,536, and to 65,535/65,536 at most.
    """
    elements = math.prod(shape)
    # PyTorch draws no such words on a Mac's GPU
    words = torch.empty(
        (elements + 3) // 4, dtype=torch.int64, device="cpu" if device.type == "mps" else device
    )
    words.random_(-(2**63), None)  # all 64 bits
    draws = words.view(torch.int16)[:elements].view(shape)  # -32,768 … 32,767
    return (draws >= min(round(fraction * 2**16), 2**16 - 1) - 2**15).to(device)


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
IMPLEMENTATIONS = {"fused": fused, "unrolled": unrolled}
