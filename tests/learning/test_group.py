"""Parts of a batch together give what the whole batch gives; tests/pipeline has the processes."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from learners import Learner
from samples import drawn, small_model

from mnist_lstm.learning import group
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.group import Group, Parted

CPU = torch.device("cpu")
BEYOND = {"reads": "both", "num_rows": 8, "directions": "both", "pooling": "mean"}


@pytest.mark.parametrize("images", [1, 5, 16])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_image_is_in_one_part(processes: int, images: int) -> None:
    parts = [Group(rank, processes, CPU).part(images) for rank in range(processes)]
    assert [image for part in parts for image in range(images)[part]] == list(range(images))
    sizes = [len(range(images)[part]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def gradients(settings: dict[str, Any], processes: int | None) -> Iterator[list[torch.Tensor]]:
    """The gradients of each process for one batch; None: those of a model without a group."""
    data = drawn(images=7, seed=1)
    for rank in range(processes or 1):
        torch.manual_seed(0)
        model = small_model(dropout=0.5, **settings)
        pixels = Augmentation(rotation=10, elastic=0.5)(data.pixels)
        labels = data.labels.long()
        if processes:
            model.part = Group(rank, processes, CPU).part
            labels = labels[model.part(7)]
        F.cross_entropy(model(pixels), labels, reduction="sum").backward()
        yield [weight.grad for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("settings", [{}, BEYOND, {"cell": "gru", "implementation": "unrolled"}])
def test_gradients_of_the_parts_sum_up_to_those_of_the_batch(settings: dict[str, Any]) -> None:
    (whole,) = gradients(settings, None)
    (alone,) = gradients(settings, 1)
    for one, other in zip(whole, alone, strict=True):
        assert torch.equal(one, other)
    for processes in (2, 3):
        parts = list(gradients(settings, processes))
        for expected, *its in zip(whole, *parts, strict=True):
            torch.testing.assert_close(sum(its), expected, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(its[0], expected)


def test_a_part_is_for_training_only() -> None:
    model, data = small_model(dropout=0.5), drawn(images=7, seed=1)
    expected = model.eval()(data.pixels)
    model.part = Group(1, 2, CPU).part
    assert torch.equal(model(data.pixels), expected)
    assert len(model.train()(data.pixels)) == 4


def test_one_process_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert group.size() == 1
    with group.joined(CPU) as together:
        assert together is None


class Wired(Group):
    """One of two processes on two hosts, with a dictionary in place of the network."""

    def __init__(self, rank: int, sent: dict[str, Any]) -> None:
        super().__init__(rank, 2, CPU)
        self.sent = sent

    def share(self, tensors: Mapping[str, torch.Tensor] | None, source: int = 0) -> dict[str, Any]:
        if self.rank == source:
            self.sent["tensors"] = dict(tensors or {})
        return dict(self.sent["tensors"])

    def largest(self, value: int) -> tuple[int, int]:
        values = self.sent.setdefault("values", {})
        values[self.rank] = max(value, values.get(self.rank, 0))
        return max(values.values()), max(values, key=lambda rank: int(values[rank]))


@pytest.mark.parametrize("newest", [0, 1])
def test_the_newest_checkpoint_of_any_host_is_that_of_the_first(
    tmp_path: Path, newest: int
) -> None:
    saved = [Checkpoint(tmp_path / str(rank), "f") for rank in (0, 1)]
    for rank, checkpoint in enumerate(saved):
        checkpoint.folder.mkdir(parents=True)
        checkpoint.save(*Learner(seed=rank).parts, {"step": 5 + 2 * (rank == newest)})
    expected = [checkpoint.path.read_bytes() for checkpoint in saved]
    expected[0] = expected[newest]
    sent: dict[str, Any] = {}
    for rank in (0, 1, 0):  # the last time, the first process knows the other's step
        Wired(rank, sent).bring_newest(saved[rank])
    assert [checkpoint.path.read_bytes() for checkpoint in saved] == expected


@pytest.mark.parametrize(
    ("stops", "ended", "expected"), [(3, False, 3), (9, False, 7), (3, True, 0)]
)
def test_who_helps_starts_from_the_state_of_the_first(
    tmp_path: Path, stops: int, ended: bool, expected: int
) -> None:
    first, sent = Learner(seed=1), {"values": {0: 0}}
    first.run(0, 2)
    assert Wired(0, sent).share_state(first, 2, ended=ended) == (2 if not ended else sys.maxsize)
    weights, helper, made = first.weights(), Learner(seed=2), []
    group = Wired(1, sent)

    def fit_from(start: int) -> Iterable[None]:
        assert torch.equal(helper.weights(), weights)
        for step in range(start + 1, 10):
            made.append(step)
            group.stops = int(step == 2 + stops)
            yield

    group.help(Checkpoint(tmp_path, "f"), helper, fit_from)
    assert made == list(range(3, 3 + expected))
    assert helper.model.part(16) == slice(8, 16)


@pytest.mark.parametrize("reason", [0, 2, 15])
def test_who_asks_to_stop_says_why(reason: int) -> None:
    model = small_model()
    model(drawn(images=3, seed=1).pixels).sum().backward()
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    expected = [weight.grad.clone() for weight in weights]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        alone = Group(0, 1, CPU)
        alone.sum_gradients(model, reason)
    finally:
        dist.destroy_process_group()
    assert alone.stops == reason
    assert all(map(torch.equal, expected, [weight.grad for weight in weights]))


def test_processes_that_cannot_reach_each_other_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to find address for: eth7\nand more")

    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", refuse)
    reason = "another process of this training cannot be reached: Unable to find address for: eth7"
    with pytest.raises(Parted, match=f"^{reason}$"), group.joined(CPU):
        pass
