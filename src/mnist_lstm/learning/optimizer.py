"""Adam with a moving average of the weights, and the one-cycle learning rate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 0.3  # fraction of a one-cycle training during which the learning rate rises


class AveragingAdam(torch.optim.Adam):
    """Adam that also keeps an exponential moving average of each weight, if `averaging` > 0.

    After each step, average = averaging · average + (1 - averaging) · weight. The average starts at
    zero, so it is divided by 1 - averaging^step before use, like Adam's own moments (Kingma and
    Ba, 2015). Weight decay is decoupled from the gradients (Loshchilov and Hutter, 2019). Only
    parameters that require gradients are optimized. On a GPU, the step can be part of a CUDA graph.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        averaging: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        on_gpu = weights[0].is_cuda
        super().__init__(
            weights,
            torch.tensor(lr, device=weights[0].device) if on_gpu else lr,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
            fused=on_gpu or None,
            capturable=on_gpu,
        )
        self.defaults["averaging"] = averaging

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the weights from their gradients."""
        loss = super().step(closure)
        if averaging := self.defaults["averaging"]:
            weights = list(_weights(self))
            for weight in weights:
                if "average" not in self.state[weight]:
                    self.state[weight]["average"] = torch.zeros_like(weight)
            averages = [self.state[weight]["average"] for weight in weights]
            torch._foreach_lerp_(averages, weights, 1 - averaging)  # one kernel on a GPU
        return loss


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block, replace the weights by their averages, if the optimizer keeps any."""
    averaging = optimizer.defaults.get("averaging", 0)
    replaced = [weight for weight in _weights(optimizer) if "average" in optimizer.state[weight]]
    before = [weight.detach().clone() for weight in replaced]
    with torch.no_grad():
        for weight in replaced:
            state = optimizer.state[weight]
            weight.copy_(state["average"] / (1 - averaging ** state["step"].item()))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, own in zip(replaced, before, strict=True):
                weight.copy_(own)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next steps."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a CUDA graph reads the rate from this tensor
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def one_cycle(highest: float, step: int, steps: int) -> float:
    """The learning rate of a step out of 1, 2, … steps.

    The rate rises to `highest` and falls to zero, each along a cosine (Smith and Topin, 2018).
    """
    rises = WARM_UP * steps
    way = step / rises if step <= rises else 1 + (step - rises) / (steps - rises)
    return highest * (1 - math.cos(math.pi * way)) / 2


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
