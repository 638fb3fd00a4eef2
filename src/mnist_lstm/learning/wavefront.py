"""LSTM layers as a wavefront on an NVIDIA GPU: while layer l reads time step t, layer l + 1 reads
step t - 1. A wave is one kernel, in Triton; waves follow each other in one CUDA graph.

cuDNN cannot do this: dropout between two layers is drawn outside of cuDNN, so cuDNN computes one
layer after another. A step of the reference recipe then takes 0.97 ms on an H100
(docs/benchmark.md).

S stacks of layers beside each other, L layers in each stack, T time steps, B batch, D inputs, H
hidden size. A tensor holds the layers one after another, stack by stack: layer l of stack s is
number s·L + l. Time comes before the batch: (S·L, T, B, H).
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import PTXASError

GATES = 4  # input, forget, cell, output: torch's order
ALIGNED = 16  # inputs are padded to a multiple of this, so that 16 bytes are loaded at once
# images and units that a program computes, the length of a product's parts, warps, pipeline stages:
# the best of 34 that were measured on an H100, for (S·L·B, H) of (256, 256) and (2048, 256)
FEW, MANY = 0, 1
FORWARD_TILES = ((16, 32, 128, 4, 4), (64, 32, 64, 4, 3))
BACKWARD_TILES = ((16, 32, 256, 4, 3), (64, 32, 128, 4, 3))
SMALL = 512  # up to this many images in all layers together, the tiles FEW are used

# without this, Triton would compile some waves again
_wave_of = {"do_not_specialize": ["wave", "steps", "batch"]}


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2 * _sigmoid(2 * x) - 1


@triton.jit(**_wave_of)
def _forward_wave(
    lowest, inner, kernels, biases, kept, cells, gates, outputs, wave, steps, batch, scale,
    D: tl.constexpr, H: tl.constexpr, L: tl.constexpr, DROPS: tl.constexpr,
    IMAGES: tl.constexpr, UNITS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Compute each layer's next time step. A program does so for IMAGES images and UNITS units.

    `lowest` (S, T, B, D + H) and `inner` (S, L - 1, T, B, 2H) hold what a layer multiplies at each
    step: its inputs, then its own output of the previous step. `kernels` has a layer's weights in
    the same order, (4H, D + H) or (4H, 2H). Hochreiter and Schmidhuber (1997) with forget gates
    (Gers et al., 2000): c' = f·c + i·g, h' = o·tanh(c').
    """
    number = tl.program_id(2)
    layer, stack = number % L, number // L
    t = wave - layer
    if (t >= 0) & (t < steps):
        images = tl.program_id(1) * IMAGES + tl.arange(0, IMAGES)
        units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
        is_image, is_unit = images < batch, units < H
        inside = is_image[:, None] & is_unit[None, :]
        here = ((number * steps + t) * batch + images[:, None]) * H + units[None, :]
        # load first what is needed last
        before = tl.load(cells + here - batch * H, inside & (units[None, :] + t * H >= H), 0.0)
        if DROPS:
            mask = tl.load(kept + here, inside, 0).to(tl.float32) * scale
        bias = biases + number * 4 * H + units
        i = tl.load(bias, is_unit, 0.0)[None, :] + tl.zeros((IMAGES, UNITS), tl.float32)
        f = tl.load(bias + H, is_unit, 0.0)[None, :] + tl.zeros((IMAGES, UNITS), tl.float32)
        g = tl.load(bias + 2 * H, is_unit, 0.0)[None, :] + tl.zeros((IMAGES, UNITS), tl.float32)
        o = tl.load(bias + 3 * H, is_unit, 0.0)[None, :] + tl.zeros((IMAGES, UNITS), tl.float32)
        weights = kernels + stack * (4 * H * (D + H) + (L - 1) * 8 * H * H)
        if layer == 0:
            inputs = D
            width = D + H
            read = lowest + (stack * steps + t) * batch * width
        else:
            inputs = H
            width = 2 * H
            weights += 4 * H * (D + H) + (layer - 1) * 8 * H * H
            read = inner + ((stack * (L - 1) + layer - 1) * steps + t) * batch * width
        length = width if t > 0 else inputs  # before the first step there is no output
        for part in range(0, length, PART):
            k = part + tl.arange(0, PART)
            x = tl.load(
                read + images[:, None] * width + k[None, :],
                is_image[:, None] & (k < length)[None, :],
                0.0,
            )
            at = weights + units[None, :] * width + k[:, None]
            there = is_unit[None, :] & (k < length)[:, None]
            i = tl.dot(x, tl.load(at, there, 0.0), i)
            f = tl.dot(x, tl.load(at + H * width, there, 0.0), f)
            g = tl.dot(x, tl.load(at + 2 * H * width, there, 0.0), g)
            o = tl.dot(x, tl.load(at + 3 * H * width, there, 0.0), o)
        i, f, g, o = _sigmoid(i), _sigmoid(f), _tanh(g), _sigmoid(o)
        c = f * before + i * g
        y = o * _tanh(c)
        tl.store(cells + here, c, inside)
        kind = gates.dtype.element_ty
        at = gates + ((number * steps + t) * batch + images[:, None]) * 4 * H + units[None, :]
        tl.store(at, i.to(kind), inside)
        tl.store(at + H, f.to(kind), inside)
        tl.store(at + 2 * H, g.to(kind), inside)
        tl.store(at + 3 * H, o.to(kind), inside)
        after = images[:, None] * width + inputs + units[None, :] + batch * width
        tl.store(read + after, y.to(kind), inside & (units[None, :] < (steps - 1 - t) * H))
        if DROPS:
            y = y * mask
        if layer == L - 1:
            above = outputs + ((stack * steps + t) * batch + images[:, None]) * H
        else:
            above = inner + ((stack * (L - 1) + layer) * steps + t) * batch * 2 * H
            above += images[:, None] * 2 * H
        tl.store(above + units[None, :], y.to(kind), inside)


@triton.jit(**_wave_of)
def _backward_wave(
    grads, by_stack, by_step, by_image, kernels, kept, cells, gates, by_gate, by_cell, by_input,
    wave, steps, batch, scale,
    D: tl.constexpr, H: tl.constexpr, L: tl.constexpr, S: tl.constexpr, DROPS: tl.constexpr,
    IMAGES: tl.constexpr, UNITS: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of each layer's previous time step, as `_forward_wave` divides them.

    The first S·L programs along the last axis compute the gradients of a layer's gates, `by_gate`
    (S·L, T, B, 4H). The other programs compute, one wave later, the gradients of a layer's inputs,
    `by_input` (S·(L - 1), T, B, H). So layer l is two waves behind layer l + 1.
    """
    number = tl.program_id(2)
    is_gate = number < S * L
    if is_gate:
        layer, stack = number % L, number // L
        t = steps - 1 - (wave - 2 * (L - 1 - layer))
    else:
        layer = (number - S * L) % (L - 1 + (L == 1)) + 1
        stack = (number - S * L) // (L - 1 + (L == 1))
        t = steps - 1 - (wave - 2 * (L - 1 - layer) - 1)
    if (t >= 0) & (t < steps):
        images = tl.program_id(1) * IMAGES + tl.arange(0, IMAGES)
        units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
        is_image, is_unit = images < batch, units < H
        inside = is_image[:, None] & is_unit[None, :]
        one = (stack * L + layer) * steps + t
        weights = kernels + stack * (4 * H * (D + H) + (L - 1) * 8 * H * H)
        if layer == 0:
            width = D + H
            weights += D
        else:
            width = 2 * H
            weights += 4 * H * (D + H) + (layer - 1) * 8 * H * H
            if is_gate:
                weights += H
        # the layer itself reads the output of a step one step later
        length = 4 * H
        if is_gate & (t == steps - 1):
            length = 0
        read = by_gate + (one * batch + images[:, None]) * 4 * H
        if is_gate:
            read += batch * 4 * H
        grad = tl.zeros((IMAGES, UNITS), tl.float32)
        for part in range(0, length, PART):
            k = part + tl.arange(0, PART)
            x = tl.load(read + k[None, :], is_image[:, None] & (k < length)[None, :], 0.0)
            at = weights + k[:, None] * width + units[None, :]
            grad = tl.dot(x, tl.load(at, is_unit[None, :] & (k < length)[:, None], 0.0), grad)
        if is_gate:
            here = (one * batch + images[:, None]) * H + units[None, :]
            if layer == L - 1:
                above = grads + stack * by_stack + t * by_step + images[:, None] * by_image
                up = tl.load(above + units[None, :], inside, 0.0).to(tl.float32)
            else:
                its = by_input + ((stack * (L - 1) + layer) * steps + t) * batch * H
                up = tl.load(its + images[:, None] * H + units[None, :], inside, 0.0)
            if DROPS:
                up = up * tl.load(kept + here, inside, 0).to(tl.float32) * scale
            grad += up
            at = gates + (one * batch + images[:, None]) * 4 * H + units[None, :]
            i = tl.load(at, inside, 0.0).to(tl.float32)
            f = tl.load(at + H, inside, 0.0).to(tl.float32)
            g = tl.load(at + 2 * H, inside, 0.0).to(tl.float32)
            o = tl.load(at + 3 * H, inside, 0.0).to(tl.float32)
            c = _tanh(tl.load(cells + here, inside, 0.0))
            before = tl.load(cells + here - batch * H, inside & (units[None, :] + t * H >= H), 0.0)
            carried = by_cell + ((stack * L + layer) * batch + images[:, None]) * H + units[None, :]
            later = inside & (units[None, :] < (steps - 1 - t) * H)
            cell = tl.load(carried, later, 0.0) + grad * o * (1 - c * c)
            tl.store(carried, cell * f, inside)
            kind = by_gate.dtype.element_ty
            at = by_gate + (one * batch + images[:, None]) * 4 * H + units[None, :]
            tl.store(at, (cell * g * i * (1 - i)).to(kind), inside)
            tl.store(at + H, (cell * before * f * (1 - f)).to(kind), inside)
            tl.store(at + 2 * H, (cell * i * (1 - g * g)).to(kind), inside)
            tl.store(at + 3 * H, (grad * c * o * (1 - o)).to(kind), inside)
        else:
            below = by_input + ((stack * (L - 1) + layer - 1) * steps + t) * batch * H
            tl.store(below + images[:, None] * H + units[None, :], grad, inside)


class _Wavefront(torch.autograd.Function):
    """Inputs (S, T, B, D) -> outputs of the top layers (S, T, B, H); with gradients of weights."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, kept: Tensor | None, scale: float, stacks: int, *weights: Tensor
    ) -> Tensor:
        steps, batch, size = x.shape[1:]
        hidden, layers = weights[1].shape[1], len(weights) // 3 // stacks
        padded = -(-size // ALIGNED) * ALIGNED
        kernels = _packed(weights, stacks, padded)
        biases = torch.stack(weights[2::3])  # (S·L, 4H)
        lowest = kernels.new_zeros((stacks, steps, batch, padded + hidden))
        lowest[..., :size] = x
        inner = kernels.new_empty((stacks, layers - 1, steps, batch, 2 * hidden))
        inner[:, :, 0, :, hidden:] = 0
        each = (stacks * layers, steps, batch)
        cells = x.new_empty((*each, hidden), dtype=torch.float32)
        gates = kernels.new_empty((*each, GATES * hidden))
        outputs = kernels.new_empty((stacks, steps, batch, hidden))
        images, units, part, warps, stages = FORWARD_TILES[_many(stacks * layers * batch)]
        grid = (triton.cdiv(hidden, units), triton.cdiv(batch, images), stacks * layers)
        for wave in range(steps + layers - 1):
            _forward_wave[grid](
                lowest, inner, kernels, biases, cells if kept is None else kept, cells, gates,
                outputs, wave, steps, batch, scale, padded, hidden, layers, kept is not None,
                images, units, part, num_warps=warps, num_stages=stages,
            )  # fmt: skip
        context.save_for_backward(lowest, inner, kernels, kept, cells, gates)
        context.scale, context.sizes = scale, (size, padded)
        return outputs

    @staticmethod
    def backward(context: Any, grads: Tensor) -> Any:
        lowest, inner, kernels, kept, cells, gates = context.saved_tensors
        size, padded = context.sizes
        stacks, steps, batch, _ = lowest.shape
        hidden, layers = cells.shape[3], inner.shape[1] + 1
        if grads.stride(3) != 1:
            grads = grads.contiguous()
        by_gate = torch.empty_like(gates)
        by_cell = cells.new_empty((stacks * layers, batch, hidden))
        by_input = cells.new_empty((stacks * (layers - 1), steps, batch, hidden))
        images, units, part, warps, stages = BACKWARD_TILES[_many(stacks * layers * batch)]
        grid = (
            triton.cdiv(hidden, units),
            triton.cdiv(batch, images),
            stacks * layers + stacks * (layers - 1),
        )
        for wave in range(steps + 2 * (layers - 1)):
            _backward_wave[grid](
                grads, *grads.stride()[:3], kernels, cells if kept is None else kept, cells, gates,
                by_gate, by_cell, by_input, wave, steps, batch, context.scale,
                padded, hidden, layers, stacks, kept is not None,
                images, units, part, num_warps=warps, num_stages=stages,
            )  # fmt: skip
        flat = by_gate.view(stacks, layers, steps * batch, GATES * hidden)
        first = torch.bmm(flat[:, 0].mT, lowest.view(stacks, steps * batch, -1)).float()
        by_bias = flat.sum(2, dtype=torch.float32)
        by_weight: list[Tensor] = []
        for stack in range(stacks):
            by_weight += [first[stack, :, :size], first[stack, :, padded:], by_bias[stack, 0]]
            if layers > 1:
                read = inner[stack].view(layers - 1, steps * batch, 2 * hidden)
                rest = torch.bmm(flat[stack, 1:].mT, read).float()
                for layer in range(layers - 1):
                    by_weight += [
                        rest[layer, :, :hidden],
                        rest[layer, :, hidden:],
                        by_bias[stack, layer + 1],
                    ]
        return (None, None, None, None, *by_weight)


def run(
    x: Tensor, weights: Sequence[Sequence[Tensor]], kept: Tensor | None, dropped: float
) -> Tensor:
    """The outputs of the top layers, dropout included: (S, T, B, D) -> (S, T, B, H).

    `weights` has w_ih (4H, D or H), w_hh (4H, H) and b_ih (4H) of each layer, stack by stack, in
    float32 on the GPU. `kept` (S·L, T, B, H) says which outputs dropout keeps, and `dropped` is the
    fraction that it drops; None keeps all outputs. On a GPU, products are computed in bfloat16 and
    summed in float32, and cells are float32. On a CPU, where Triton's interpreter can run the
    kernels, everything is float32. The same inputs give the same bits.
    """
    stacks = x.shape[0]
    flat = [weight for layer in weights for weight in layer]
    mask = None if kept is None else kept.view(torch.uint8)
    outputs: Tensor = _Wavefront.apply(x, mask, 1 / (1 - dropped), stacks, *flat)
    return outputs


def reaches(*, stacks: int, layers: int, inputs: int, hidden: int, steps: int, batch: int) -> bool:
    """Whether the kernels, which compute offsets in 32 bits, reach all elements of each tensor."""
    padded = -(-inputs // ALIGNED) * ALIGNED
    widest = max(padded + hidden, layers * GATES * hidden)  # of `lowest` and `gates`
    return stacks * steps * batch * widest < 2**31


def works(device: torch.device) -> bool:
    """Whether the kernels work on a GPU: Triton needs a C compiler and an Ampere GPU or newer."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    x = torch.zeros((1, 2, 1, ALIGNED), dtype=torch.bfloat16, device=device)
    sizes = ((4 * ALIGNED, ALIGNED), (4 * ALIGNED, ALIGNED), (4 * ALIGNED,))
    layer = [torch.zeros(size, device=device, requires_grad=True) for size in sizes]
    try:
        run(x, [layer, layer], None, 0.0).sum().backward()
    except torch.OutOfMemoryError:  # which says nothing about the kernels
        raise
    except (RuntimeError, OSError, PTXASError):  # no C compiler, no disk space for its cache, …
        return False
    return True


def _packed(weights: Sequence[Tensor], stacks: int, padded: int) -> Tensor:
    """The kernels of all layers one after another, [inputs | hidden], in bfloat16 on a GPU."""
    hidden, layers = weights[1].shape[1], len(weights) // 3 // stacks
    kind = torch.bfloat16 if weights[0].is_cuda else torch.float32
    size = GATES * hidden * (padded + hidden) + (layers - 1) * GATES * hidden * 2 * hidden
    packed = torch.zeros(stacks * size, dtype=kind, device=weights[0].device)
    start = 0
    for number in range(stacks * layers):
        w_ih, w_hh, _ = weights[3 * number : 3 * number + 3]
        inputs = hidden if number % layers else padded
        end = start + GATES * hidden * (inputs + hidden)
        kernel = packed[start:end].view(GATES * hidden, inputs + hidden)
        kernel[:, : w_ih.shape[1]] = w_ih
        kernel[:, inputs:] = w_hh
        start = end
    return packed


def _many(images: int) -> int:
    return FEW if images <= SMALL else MANY
