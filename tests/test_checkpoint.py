from pathlib import Path

import pytest
import torch
from samples import drawn, small_model

from mnist_lstm.checkpoint import Checkpoint, capture, code_digest, fingerprint, restore
from mnist_lstm.model import RowLSTM
from mnist_lstm.sequences import Batches
from mnist_lstm.training import Evaluation, fit


class Training:
    """A small one, to be stopped and gone on with."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model: RowLSTM = small_model()
        self.optimizer = torch.optim.Adam([w for w in self.model.parameters() if w.requires_grad])
        self.batches = Batches(40, 16, torch.Generator().manual_seed(seed))

    def run(self, start: int, steps: int) -> list[Evaluation]:
        train, held_out = drawn(40, seed=1), drawn(20, seed=2)
        return list(
            fit(
                self.model,
                self.optimizer,
                self.batches,
                train,
                held_out,
                held_out,
                start=start,
                steps=steps,
                eval_every=1,
                eval_batch_size=20,
            )
        )


@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path, stop: int) -> None:
    whole = Training(seed=0)
    curve = whole.run(0, 10)

    stopped, checkpoint = Training(seed=0), Checkpoint(tmp_path, "f")
    first = stopped.run(0, stop)
    checkpoint.save(capture(stopped.model, stopped.optimizer, stopped.batches))
    other, state = Training(seed=5), checkpoint.load()  # nothing of its seed must be left
    assert state is not None
    restore(state, other.model, other.optimizer, other.batches)

    assert first + other.run(stop, 10) == curve
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name])


def test_a_checkpoint_is_found_by_its_fingerprint_alone(tmp_path: Path) -> None:
    one, other = Checkpoint(tmp_path, "one"), Checkpoint(tmp_path, "other")
    assert one.load() is None
    one.save({"step": 1})
    one.save({"step": 2})
    assert one.load() == {"step": 2}
    assert other.load() is None
    one.remove()
    assert one.load() is None


def test_fingerprints_tell_facts_apart() -> None:
    facts = {"seed": 0, "train": {"steps": 10, "batch_size": 5}}
    assert fingerprint(facts) == fingerprint({"train": {"batch_size": 5, "steps": 10}, "seed": 0})
    assert fingerprint(facts) != fingerprint(facts | {"seed": 1})
    assert fingerprint(facts) != fingerprint(facts | {"threads": 2})


def test_a_comment_does_not_change_the_digest_of_code(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    digests = []
    for text in ("x = 1 + 2\n", "# why\nx = (1 +\n     2)\n", "x = 1 + 3\n"):
        source.write_text(text)
        digests.append(code_digest([source]))
    assert digests[0] == digests[1] != digests[2]
