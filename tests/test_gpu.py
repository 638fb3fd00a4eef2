"""Tests that need a GPU, and no packages but torch, numpy and safetensors. `make test-gpu`."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from learners import Learner
from samples import PROJECT, small_model

from mnist_lstm.learning import checkpoint as checkpoints
from mnist_lstm.learning import device, precision
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.evaluation import read_row_by_row
from mnist_lstm.learning.fit import STEPS_BEFORE_RECORDING, Evaluation, _answers, _Recorded
from mnist_lstm.learning.model import infer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 25
BATCH = (20, 8, 5)  # its shape
# precision, and whether the layers are computed as a wavefront
WAYS = [("float32", False), ("bfloat16", False), ("bfloat16", True)]


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    device.choose("cuda")
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def waits_are_errors() -> Iterator[Callable[[], None]]:
    """Make torch raise RuntimeError whenever the CPU waits for the GPU."""
    before = torch.cuda.get_sync_debug_mode()

    def switch(mode: str | int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the mode is a prototype
            torch.cuda.set_sync_debug_mode(mode)

    yield partial(switch, "error")
    switch(before)


learner = partial(
    Learner, on="cuda", images=200, steps=STEPS, every=5, recorded=True, hidden_size=64
)


def trained(*seed: int, **settings: object) -> tuple[list[Evaluation], torch.Tensor]:
    """Run a whole training; returns its curve and weights."""
    training = learner(*seed, **settings)
    return training.run(0, STEPS), training.weights()


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_a_recorded_step_gives_the_weights_of_an_eager_one(
    name: str, wavefront: bool, beyond: bool
) -> None:
    settings = {"precision": name, "wavefront": wavefront, "beyond": beyond}
    recorded, eager = trained(**settings), trained(recorded=False, **settings)
    assert recorded[0] == eager[0]
    assert torch.equal(recorded[1], eager[1])


@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_two_trainings_give_the_same_weights_and_another_seed_others(
    name: str, wavefront: bool
) -> None:
    train = partial(trained, precision=name, wavefront=wavefront)
    first, second, other = train(0), train(0), train(1)
    assert first[0] == second[0] != other[0]
    assert torch.equal(first[1], second[1])
    assert not torch.allclose(first[1], other[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_a_second_gpu_gives_the_weights_of_the_first(
    name: str, wavefront: bool, tmp_path: Path
) -> None:
    settings = {"precision": name, "wavefront": wavefront}
    curve, weights = trained(**settings)
    try:
        device.choose("cuda:1")
        training, checkpoint = learner(on="cuda:1", **settings), Checkpoint(tmp_path, "f")
        first = training.run(0, 7)
        checkpoint.save(*training.parts, {"step": 7}, wait=False)
        assert first + training.run(7, STEPS) == curve
        assert torch.equal(training.weights().cpu(), weights.cpu())
        checkpoint.finish()
        other = learner(5, on="cuda:1", **settings)
        checkpoint.load(*other.parts)
        assert first + other.run(7, STEPS) == curve
    finally:
        torch.cuda.set_device(0)


def test_the_first_replay_waits_for_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, dropout masks differ in a step, but only while the GPU is busy."""

    class Busy(torch.cuda.CUDAGraph):
        def capture_begin(self, *arguments: object, **others: object) -> None:
            torch.cuda._sleep(2 * 10**9)  # cycles: about a second
            super().capture_begin(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Busy)
    total = torch.zeros(2, dtype=torch.int64, device="cuda")
    step = _Recorded(total.add_)
    for _ in range(STEPS_BEFORE_RECORDING + 1):
        step(torch.ones_like(total))
    torch.cuda.current_stream().synchronize()
    assert step.beside.query()  # nothing is left to do there
    assert total.tolist() == 2 * [STEPS_BEFORE_RECORDING + 1]


@pytest.mark.soak
@pytest.mark.parametrize("every", [1, 1000])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_twenty_trainings_give_the_same_weights(
    name: str, wavefront: bool, recorded: bool, every: int
) -> None:
    """Rare differences show here, and whether they need a graph or evaluations between steps."""
    settings = {"precision": name, "wavefront": wavefront, "recorded": recorded, "every": every}
    long = partial(learner, steps=500, **settings)
    results = []
    for _ in range(20):
        training = long()
        curve = training.run(0, 500)
        results.append((curve, training.weights()))
    (curve, weights), *others = results
    equal = [
        (each == curve, torch.equal(again, weights), _first_difference(curve, each))
        for each, again in others
    ]
    assert equal == [(True, True, None)] * len(others)


def _first_difference(curve: list[Evaluation], other: list[Evaluation]) -> int | None:
    """The step of the first evaluation that differs."""
    return next((a.step for a, b in zip(curve, other, strict=True) if a != b), None)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("stop", [1, STEPS_BEFORE_RECORDING, STEPS_BEFORE_RECORDING + 1, 12])
@pytest.mark.parametrize(("name", "wavefront"), [WAYS[0], WAYS[2]])
def test_a_stopped_training_goes_on_bit_for_bit(
    tmp_path: Path, stop: int, beyond: bool, name: str, wavefront: bool
) -> None:
    settings = {"precision": name, "wavefront": wavefront, "beyond": beyond}
    curve, weights = trained(**settings)

    stopped, checkpoint = learner(**settings), Checkpoint(tmp_path, "f")
    first = stopped.run(0, stop)
    checkpoint.save(*stopped.parts, {"step": stop})
    other = learner(5, **settings)  # nothing of its seed must be left
    checkpoint.load(*other.parts)
    assert first + other.run(stop, STEPS) == curve
    assert torch.equal(other.weights(), weights)


@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_between_evaluations_nothing_waits_for_the_gpu(
    waits_are_errors: Callable[[], None], name: str, wavefront: bool
) -> None:
    steps = learner(precision=name, wavefront=wavefront).steps()
    for _ in range(5):  # the last one with an evaluation
        next(steps)
    waits_are_errors()
    for _ in range(4):
        next(steps)


def test_a_checkpoint_is_written_while_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved state is that of the call, and a failure is reported at the next call."""
    _, weights = trained()
    training, checkpoint, may_write = learner(), Checkpoint(tmp_path, "f"), threading.Event()
    written: list[str] = []
    write = checkpoints.write_atomically

    def slow(*arguments: object) -> None:
        assert may_write.wait(60)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "write_atomically", slow)
    first = training.run(0, 7)
    checkpoint.save(*training.parts, {"step": 7}, lambda: written.append("7"), wait=False)
    curve = first + training.run(7, STEPS)
    assert not written
    assert not checkpoint.path.exists()
    assert not checkpoint.is_due(1e9)  # one is being written
    may_write.set()
    checkpoint.finish()
    assert written == ["7"]
    assert checkpoint.is_due(1e9)
    other = learner(5)
    assert checkpoint.load(*other.parts) == {"step": 7}
    assert first + other.run(7, STEPS) == curve
    assert torch.equal(other.weights(), weights)

    def refused(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "write_atomically", refused)
    checkpoint.save(*training.parts, {"step": 8}, wait=False)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(*training.parts, {"step": 9}, wait=False)


@pytest.mark.parametrize(("name", "wavefront"), WAYS)
def test_it_trains_as_a_cpu_does(name: str, wavefront: bool) -> None:
    gpu = learner(dropout=0.0, precision=name, wavefront=wavefront)
    start = gpu.weights()
    gpu.run(0, 8)
    cpu = learner(dropout=0.0, on="cpu", recorded=False)
    cpu.run(0, 8)
    apart = (gpu.weights() - cpu.weights()).norm() / (cpu.weights() - start).norm()
    # Adam's first steps are as large as the learning rate, even if a gradient is almost zero
    assert apart < {"float32": 0.02, "bfloat16": 0.5}[name]


def test_bfloat16_works_and_is_chosen() -> None:
    model = small_model().to("cuda")
    assert precision.works(model)
    if torch.cuda.get_device_capability() >= (8, 0):
        assert precision.choose("auto", model) == "bfloat16"
        assert precision.is_wavefront("bfloat16", model, BATCH)
        assert not precision.is_wavefront("float32", model, BATCH)
        two_ways = small_model(directions="both").to("cuda")
        assert not precision.is_wavefront("bfloat16", two_ways, BATCH)
        # more elements than the kernels' offsets reach
        assert not precision.is_wavefront("bfloat16", model, (2**26, *BATCH[1:]))


def test_a_gpu_reads_images_as_a_processor_does() -> None:
    gpu = learner(precision="bfloat16", wavefront=True)
    gpu.run(0, STEPS)
    images, model = gpu.test.pixels, gpu.model
    after_all = infer(model, images, 7)
    torch.testing.assert_close(infer(model, images, 20), after_all, rtol=0, atol=0.05)
    reading = read_row_by_row(model, images.split(20))
    torch.testing.assert_close(reading[:, -1], infer(model, images, 20))
    assert torch.equal(_answers(model, [gpu.test], 2**62)[0], after_all)
    model.precision = "float32"
    on_cpu = infer(model.cpu(), images.cpu(), 20)
    torch.testing.assert_close(on_cpu, after_all.cpu(), rtol=0, atol=0.1)


GRADIENTS = """
import torch
from mnist_lstm.learning.model import RowLSTM
torch.backends.cudnn.allow_tf32 = False
SIZES = (("rows", 256, 128, 2), ("both", 256, 512, 2), ("both", 100, 9, 3))
for reads, hidden, batch, layers in SIZES:
    torch.manual_seed(0)
    model = RowLSTM(input_size=28, num_rows=28, num_classes=10, hidden_size=hidden, reads=reads,
        num_layers=layers, dropout=0.0, forget_bias=1.0, implementation="fused").to("cuda")
    pixels = torch.randint(0, 256, (batch, 28, 28), device="cuda")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    answers = []
    for model.precision, model.wavefront in (("float32", False), ("bfloat16", True)):
        logits = model(pixels)
        answers.append([logits, *torch.autograd.grad(logits.square().sum(), weights)])
    for exact, near in zip(*answers):
        assert ((exact - near).norm() / exact.norm()).item() < 0.03, (reads, exact.shape)
"""


def test_a_wavefront_gives_the_gradients_of_cudnn() -> None:
    """Runs in a new process, which also shows that the kernels compile there."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    subprocess.run([sys.executable, "-c", GRADIENTS], check=True, env=environment, timeout=300)
