"""Optimizers with a moving average of the weights, and the one-cycle learning rate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 0.3  # fraction of a one-cycle training during which the learning rate rises
MOMENTUM = 0.9  # of stochastic gradient descent


class Averaging(torch.optim.Optimizer):
    """One of torch's optimizers that also keeps an exponential moving average of each weight.

    The average is kept if `averaging` > 0. After each step, average = averaging · average
    + (1 - averaging) · weight. The average starts at zero, so it is divided by 1 - averaging^step
    before use, like Adam's own moments (Kingma and Ba, 2015). Weight decay is decoupled from the
    gradients (Loshchilov and Hutter, 2019). Only parameters that require gradients are optimized.
    On a GPU, the step can be part of a CUDA graph.
    """

    moments: tuple[str, ...]  # what torch keeps of each weight, in its shape
    counts = True  # whether torch counts the steps
    decays = False  # whether torch has decoupled weight decay

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
        rate = torch.tensor(lr, device=weights[0].device) if on_gpu else lr
        super().__init__(weights, rate, **self.settings(on_gpu, weight_decay))  # type: ignore[arg-type]
        self.defaults |= {"averaging": averaging, "decoupled": 0 if self.decays else weight_decay}

    @staticmethod
    def settings(on_gpu: bool, weight_decay: float) -> dict[str, Any]:
        """What torch's optimizer gets beside the weights and the learning rate."""
        raise NotImplementedError

    def kept(self) -> tuple[tuple[str, ...], bool]:
        """What the state has of each weight in its shape, and whether it has `step` too."""
        averages = bool(self.defaults["averaging"])
        return (*self.moments, *(["average"] * averages)), self.counts or averages

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the weights from their gradients."""
        weights = list(_weights(self))
        if decay := self.defaults["decoupled"]:
            torch._foreach_mul_(weights, 1 - decay * self.param_groups[0]["lr"])
        loss = super().step(closure)
        if averaging := self.defaults["averaging"]:
            for weight in weights:
                if "average" not in self.state[weight]:
                    self.state[weight]["average"] = torch.zeros_like(weight)
                    if not self.counts:
                        self.state[weight]["step"] = torch.zeros((), device=weight.device)
            if not self.counts:
                torch._foreach_add_([self.state[weight]["step"] for weight in weights], 1)
            averages = [self.state[weight]["average"] for weight in weights]
            torch._foreach_lerp_(averages, weights, 1 - averaging)  # one kernel on a GPU
        return loss


class AveragingAdam(Averaging, torch.optim.Adam):
    """Adam (Kingma and Ba, 2015), with torch's β and ε."""

    moments = ("exp_avg", "exp_avg_sq")
    decays = True

    @staticmethod
    def settings(on_gpu: bool, weight_decay: float) -> dict[str, Any]:
        """One fused kernel on a GPU."""
        return {
            "weight_decay": weight_decay,
            "decoupled_weight_decay": True,
            "fused": on_gpu or None,
            "capturable": on_gpu,
        }


class AveragingSGD(Averaging, torch.optim.SGD):
    """Stochastic gradient descent with momentum in torch's form: the rate is outside of it.

    In the form of Sutskever et al. (2013), the momentum contains the rate of each step.
    """

    moments = ("momentum_buffer",)
    counts = False

    @staticmethod
    def settings(on_gpu: bool, weight_decay: float) -> dict[str, Any]:
        """One fused kernel on a GPU, where it reads the learning rate from a tensor."""
        return {"momentum": MOMENTUM, "fused": on_gpu or None}


class AveragingRMSprop(Averaging, torch.optim.RMSprop):
    """RMSprop (Tieleman and Hinton, 2012), with torch's α and ε."""

    moments = ("square_avg",)

    @staticmethod
    def settings(on_gpu: bool, weight_decay: float) -> dict[str, Any]:
        """Capturable on a GPU."""
        return {"capturable": on_gpu}


OPTIMIZERS = {"adam": AveragingAdam, "sgd": AveragingSGD, "rmsprop": AveragingRMSprop}


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

    The rate rises to `highest` and falls to zero. The idea is that of Smith and Topin (2018); here
    it follows cosines instead of lines, as in torch's OneCycleLR. It is zero at the last step,
    which changes no weight.
    """
    rises = WARM_UP * steps
    way = step / rises if step <= rises else 1 + (step - rises) / (steps - rises)
    return highest * (1 - math.cos(math.pi * way)) / 2


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
