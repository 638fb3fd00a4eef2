import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from mutations import DAMAGE, Damage, damaged, few_or_many, fuzz, memory, what_it_says
from safetensors.torch import save_file
from samples import drawn

from mnist_lstm import UserError
from mnist_lstm.data.sequences import Batches, Sequences, split


def batches(images: int, batch: int, seed: int = 0) -> Batches:
    return Batches(images, batch, torch.Generator().manual_seed(seed))


def test_sequences_come_back_and_their_bytes_are_the_same(tmp_path) -> None:
    data = drawn(10, seed=0)
    for name in ("one", "two"):
        data.save(tmp_path / name)
    again = Sequences.load(tmp_path / "one")
    assert torch.equal(again.pixels, data.pixels)
    assert torch.equal(again.labels, data.labels)
    assert (again.num_classes, again.dataset, again.preprocess) == (2, "drawn", {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("pixels", "labels", "reason"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, dtype=torch.uint8), "pixels must be uint8"),
        (torch.zeros(3, 64, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8), "3 dimensions"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8), "2 labels"),
        (
            torch.zeros(1, 8, 8, dtype=torch.uint8),
            torch.full((1,), 2, dtype=torch.uint8),
            "label 2",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, pixels, labels, reason: str) -> None:
    Sequences(pixels, labels, 2, "drawn", {}).save(tmp_path / "bad")
    with pytest.raises(UserError, match=f"bad: .*{reason}.*dvc repro"):
        Sequences.load(tmp_path / "bad")


def test_other_files_are_refused(tmp_path) -> None:
    (tmp_path / "torn").write_bytes(b"\x40\x00")
    save_file({"pixels": torch.zeros(1)}, tmp_path / "foreign")
    for name in ("torn", "foreign", "missing"):
        with pytest.raises(UserError, match=f"{name}: .*dvc repro"):
            Sequences.load(tmp_path / name)


@pytest.mark.parametrize(
    "about",
    [
        {"num_classes": "2"},
        {"num_classes": 2.5},
        {"num_classes": None},
        {"num_classes": 257},
        {"dataset": 5},
        {"preprocess": [1]},
    ],
)
def test_metadata_must_be_of_its_type(tmp_path, about: dict[str, object]) -> None:
    replace(drawn(10, seed=0), **about).save(tmp_path / "bad")
    with pytest.raises(UserError, match=r"bad: .*(must be|are more than)"):
        Sequences.load(tmp_path / "bad")


@few_or_many
def test_mutated_files_are_read_correctly_or_refused(tmp_path, cases) -> None:
    path, refusals, read = tmp_path / "sequences", [], 0
    drawn(12, seed=0).save(path)
    content = path.read_bytes()

    @fuzz(cases)
    @given(DAMAGE)
    def check(damage: Damage) -> None:
        nonlocal read
        file = damaged(content, damage)
        path.write_bytes(file)
        try:
            with memory(2**24):
                found = Sequences.load(path)
        except UserError as refusal:
            refusals.append(str(refusal))
        else:
            read += 1
            metadata, arrays = what_it_says(file)
            about = {key: getattr(found, key) for key in ("num_classes", "dataset", "preprocess")}
            assert about == json.loads(metadata["sequences"])
            np.testing.assert_array_equal(found.pixels.numpy(), arrays["pixels"], strict=True)
            np.testing.assert_array_equal(found.labels.numpy(), arrays["labels"], strict=True)

    check()
    assert len(refusals) > cases / 2
    assert read > cases / 100
    # what torch says where there is no room for what a header claims
    assert not any("\n" in line or "allocate" in line for line in refusals)


def test_split_parts_the_first_images() -> None:
    images, labels = np.arange(10 * 4).reshape(10, 2, 2), np.arange(10)
    (rest, rest_labels), (parted, parted_labels) = split(images, labels, 3, None)
    assert parted_labels.tolist() == [0, 1, 2]
    assert rest_labels.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert (parted == images[:3]).all()
    assert (rest == images[3:]).all()


def test_split_draws_with_a_generator() -> None:
    images, labels = np.zeros((100, 1, 1)), np.arange(100)
    drawn_ones = [
        split(images, labels, 30, torch.Generator().manual_seed(seed))[1][1].tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn_ones[0] == drawn_ones[1] != drawn_ones[2]
    assert drawn_ones[0] == sorted(set(drawn_ones[0]))
    assert len(drawn_ones[0]) == 30
    assert drawn_ones[0] != list(range(30))


def test_split_leaves_as_many_images_as_asked_for_and_the_same_ones_among_more() -> None:
    images, labels = np.zeros((100, 1, 1)), np.arange(100)
    (_, first), (_, parted) = split(images, labels, 30, None, 20)
    assert first.tolist() == list(range(30, 50))
    assert parted.tolist() == list(range(30))

    def drawn_ones(rest: int | None) -> tuple[list[int], list[int]]:
        generator = torch.Generator().manual_seed(1)
        (_, left), (_, parted) = split(images, labels, 30, generator, rest)
        return left.tolist(), parted.tolist()

    (few, parted), (more, parted_again) = drawn_ones(20), drawn_ones(40)
    assert few == sorted(few) != list(range(few[0], few[0] + 20))
    assert len(few) == 20
    assert set(few) < set(more) < set(drawn_ones(None)[0])
    assert parted == parted_again


def test_batches_run_across_an_epochs_end() -> None:
    stream = torch.cat([next(stream) for stream in [batches(10, 4)] for _ in range(5)])
    assert len(stream) == 20
    first, second = stream[:10].tolist(), stream[10:].tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_batch_may_be_the_whole_set() -> None:
    stream = batches(5, 5)
    assert [sorted(next(stream).tolist()) for _ in range(3)] == [[0, 1, 2, 3, 4]] * 3


def test_batches_depend_on_the_seed_alone() -> None:
    assert torch.equal(next(batches(50, 20)), next(batches(50, 20)))
    assert not torch.equal(next(batches(50, 20)), next(batches(50, 20, seed=1)))


@pytest.mark.parametrize("before", [0, 1, 3, 7])
def test_batches_go_on_where_another_stream_stood(before: int) -> None:
    one = batches(10, 4)
    for _ in range(before):
        next(one)
    other = batches(10, 4, seed=99)
    other.load_state_dict(one.state_dict())
    for _ in range(8):
        assert torch.equal(next(one), next(other))


def test_every_image_comes_equally_often() -> None:
    stream = batches(7, 3)
    counts = Counter(torch.cat([next(stream) for _ in range(70)]).tolist())
    assert set(counts.values()) == {30}
