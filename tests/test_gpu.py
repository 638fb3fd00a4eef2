"""What only a GPU shows. They need torch, numpy and safetensors alone: pytest -m gpu."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from learners import Learner
from samples import small_model

from mnist_lstm.learning import device, precision
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.fit import WARM_UP

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 25


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    device.choose("cuda")
    yield
    torch.use_deterministic_algorithms(before)


learner = partial(
    Learner, on="cuda", images=200, steps=STEPS, every=5, recorded=True, hidden_size=64
)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_recorded_step_gives_the_weights_of_an_eager_one(name: str, beyond: bool) -> None:
    recorded = learner(precision=name, beyond=beyond)
    eager = learner(recorded=False, precision=name, beyond=beyond)
    assert recorded.run(0, STEPS) == eager.run(0, STEPS)
    assert torch.equal(recorded.weights(), eager.weights())


def test_two_trainings_give_the_same_weights_and_another_seed_others() -> None:
    trainings = [learner(0), learner(0), learner(1)]
    curves = [training.run(0, STEPS) for training in trainings]
    assert curves[0] == curves[1] != curves[2]
    first, second, other = (training.weights() for training in trainings)
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("stop", [1, WARM_UP, WARM_UP + 1, 12])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path, stop: int, beyond: bool) -> None:
    whole = learner(beyond=beyond)
    curve = whole.run(0, STEPS)

    stopped, checkpoint = learner(beyond=beyond), Checkpoint(tmp_path, "f")
    first = stopped.run(0, stop)
    checkpoint.save(*stopped.parts, {"step": stop})
    other = learner(5, beyond=beyond)  # nothing of its seed must be left
    checkpoint.load(*other.parts)
    assert first + other.run(stop, STEPS) == curve
    assert torch.equal(other.weights(), whole.weights())


def test_between_evaluations_nothing_waits_for_the_gpu() -> None:
    steps = learner().steps()
    for _ in range(5):  # the last one with an evaluation
        next(steps)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_it_trains_as_a_cpu_does() -> None:
    gpu, cpu = learner(dropout=0.0), learner(dropout=0.0, on="cpu", recorded=False)
    gpu.run(0, 8)
    cpu.run(0, 8)
    torch.testing.assert_close(gpu.weights(), cpu.weights(), rtol=0, atol=1e-3)


def test_bfloat16_works() -> None:
    assert precision.works(small_model().to("cuda"))
