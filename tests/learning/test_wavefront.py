"""Run the GPU's kernels on the CPU in float32, by Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from samples import PROJECT, small_model
from torch import Tensor

from mnist_lstm.learning import precision

ON_LINUX = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is for Linux alone"
)
COMPARED = """
from unittest.mock import patch
import torch
from mnist_lstm.learning import model as module
from mnist_lstm.learning.model import RowLSTM

def compare(reads, layers, hidden, batch, rows, window=1):
    model = RowLSTM(input_size=rows, num_rows=rows, num_classes=3, hidden_size=hidden, reads=reads,
        num_layers=layers, dropout=0.4, forget_bias=1.0, implementation="fused", pooling="mean",
        window=window)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    pixels = torch.randint(0, 256, (batch, rows, rows))

    # a wavefront draws the masks of all layers at once, in the order of the layers
    torch.manual_seed(1)
    masks = module.dropout(torch.ones(layers * (1 + (reads == "both")), rows, batch, hidden), 0.4)
    taken = iter(masks.transpose(1, 2))
    with patch.object(module, "dropout", lambda y, *_: y * next(taken)):
        logits = model(pixels)
    expected = torch.autograd.grad(logits.square().sum(), weights)

    torch.manual_seed(1)
    model.wavefront = True
    found = model(pixels)
    torch.testing.assert_close(found, logits)
    for exact, near in zip(expected, torch.autograd.grad(found.square().sum(), weights)):
        torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-6)

compare("rows", 2, 16, 5, 3)
compare("columns", 1, 24, 3, 2)  # no multiple of the units that a program computes
compare("both", 3, 16, 17, 3, window=5)  # more images than a program computes
"""


@ON_LINUX
def test_a_wavefront_gives_outputs_and_gradients_of_the_layers() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(PROJECT / "src")}
    command = [sys.executable, "-W", "ignore", "-c", COMPARED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_layers_that_need_all_time_steps_are_no_wavefront() -> None:
    assert small_model().can_be_a_wavefront
    assert small_model(reads="columns", num_rows=5).can_be_a_wavefront
    assert small_model(reads="both", num_rows=8).can_be_a_wavefront
    assert not small_model(reads="both", num_rows=5).can_be_a_wavefront
    assert not small_model(directions="both").can_be_a_wavefront
    assert not small_model("unrolled").can_be_a_wavefront


@ON_LINUX
def test_no_wavefront_has_more_elements_than_its_offsets_reach() -> None:
    from mnist_lstm.learning import wavefront

    sizes = {"stacks": 1, "layers": 3, "inputs": 28, "hidden": 1024, "steps": 28}
    assert wavefront.reaches(**sizes, batch=6241)  # 4 · 3 · 28 · 6241 · 1024 elements of `gates`
    assert not wavefront.reaches(**sizes, batch=6242)
    assert not wavefront.reaches(**sizes | {"stacks": 2}, batch=6241)
    # the inputs are the widest
    sizes |= {"layers": 1, "inputs": 2**20 - 15, "hidden": 16, "steps": 1}
    assert wavefront.reaches(**sizes, batch=2047)
    assert not wavefront.reaches(**sizes, batch=2048)


@ON_LINUX
def test_a_full_gpu_is_not_one_on_which_the_kernels_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_lstm.learning import wavefront

    def ends_with(error: Exception) -> Callable[..., Tensor]:
        def run(*_: object) -> Tensor:
            raise error

        return run

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(wavefront, "run", ends_with(RuntimeError("no C compiler")))
    assert not wavefront.works(torch.device("cpu"))
    monkeypatch.setattr(wavefront, "run", ends_with(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):
        wavefront.works(torch.device("cpu"))


def test_a_cpu_computes_no_wavefront() -> None:
    assert not precision.is_wavefront("bfloat16", small_model(), (2, 4, 5))
