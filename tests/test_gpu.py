"""What only a GPU shows. They need torch, numpy and safetensors alone: pytest -m gpu."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from samples import drawn, small_model

from mnist_lstm import device, precision
from mnist_lstm.augmentation import Augmentation
from mnist_lstm.checkpoint import Checkpoint
from mnist_lstm.model import RowLSTM
from mnist_lstm.optimizer import AveragingAdam, rate
from mnist_lstm.sequences import Batches
from mnist_lstm.training import WARM_UP, Evaluation, fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
STEPS = 25


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    device.choose("cuda")
    yield
    torch.use_deterministic_algorithms(before)


class Training:
    """A small one, as src/train.py makes it."""

    def __init__(
        self,
        seed: int = 0,
        *,
        on: torch.device = CUDA,
        recorded: bool = True,
        in_: str = "float32",
        dropout: float = 0.5,
        beyond: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        more = {"reads": "both", "num_rows": 8, "pooling": "mean"} if beyond else {}
        self.model: RowLSTM = small_model(hidden_size=64, dropout=dropout, **more).to(on)
        self.model.precision = in_
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = AveragingAdam(
            weights,
            torch.tensor(0.01, device=on) if on == CUDA else 0.01,
            averaging=0.9 * beyond,
            weight_decay=0.01 * beyond,
            decoupled_weight_decay=True,
            fused=True,
            capturable=on == CUDA,
        )
        self.beyond = (
            {
                "augment": Augmentation(rotation=20, shift=2, elastic=1),
                "rate_at": lambda step: rate("one-cycle", 0.01, step, STEPS),
                "clip_norm": 0.1,
            }
            if beyond
            else {}
        )
        self.batches = Batches(200, 16, torch.Generator().manual_seed(seed), on)
        self.on, self.recorded = on, recorded

    def steps(self, start: int = 0) -> Iterator[Evaluation | None]:
        train, held_out = drawn(200, seed=1).to(self.on), drawn(50, seed=2).to(self.on)
        return fit(
            self.model,
            self.optimizer,
            self.batches,
            train,
            held_out,
            held_out,
            start=start,
            steps=STEPS,
            eval_every=5,
            eval_batch_size=20,
            recorded=self.recorded,
            **self.beyond,
        )

    def run(self, start: int = 0, stop: int = STEPS) -> list[Evaluation]:
        steps = self.steps(start)
        taken = [next(steps) for _ in range(stop - start)]
        return [evaluation for evaluation in taken if evaluation]

    def weights(self) -> torch.Tensor:
        return torch.cat([weight.detach().flatten().cpu() for weight in self.model.parameters()])


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("in_", ["float32", "bfloat16"])
def test_a_recorded_step_gives_the_weights_of_an_eager_one(in_: str, beyond: bool) -> None:
    recorded = Training(in_=in_, beyond=beyond)
    eager = Training(recorded=False, in_=in_, beyond=beyond)
    assert recorded.run() == eager.run()
    assert torch.equal(recorded.weights(), eager.weights())


def test_two_trainings_give_the_same_weights_and_another_seed_others() -> None:
    trainings = [Training(0), Training(0), Training(1)]
    curves = [training.run() for training in trainings]
    assert curves[0] == curves[1] != curves[2]
    first, second, other = (training.weights() for training in trainings)
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("stop", [1, WARM_UP, WARM_UP + 1, 12])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path, stop: int, beyond: bool) -> None:
    whole = Training(beyond=beyond)
    curve = whole.run()

    stopped, checkpoint = Training(beyond=beyond), Checkpoint(tmp_path, "f")
    first = stopped.run(stop=stop)
    parts = (stopped.model, stopped.optimizer, stopped.batches)
    checkpoint.save(*parts, {"step": stop})
    other = Training(seed=5, beyond=beyond)  # nothing of its seed must be left
    checkpoint.load(other.model, other.optimizer, other.batches)
    assert first + other.run(start=stop) == curve
    assert torch.equal(other.weights(), whole.weights())


def test_between_evaluations_nothing_waits_for_the_gpu() -> None:
    steps = Training().steps()
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
    gpu = Training(dropout=0.0)
    cpu = Training(dropout=0.0, on=torch.device("cpu"), recorded=False)
    gpu.run(stop=8)
    cpu.run(stop=8)
    torch.testing.assert_close(gpu.weights(), cpu.weights(), rtol=0, atol=1e-3)


def test_bfloat16_works() -> None:
    assert precision.works(small_model().to(CUDA))
