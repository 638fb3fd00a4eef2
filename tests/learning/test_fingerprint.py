from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import REFERENCE_RECIPE

import train
from mnist_lstm.learning.fingerprint import code_digest, fingerprint
from mnist_lstm.pipeline import provenance
from mnist_lstm.pipeline.params import flatten, load

# what decides on the weights, and another value of each parameter that is a word
DECIDES = ("seed", "model.", "augment.", "train.")
OTHERS = {
    **{"lstm": "gru", "fused": "unrolled", "rows": "columns", "forward": "both", "last": "mean"},
    **{"uniform": "orthogonal", "adam": "sgd", "constant": "one-cycle"},
}
COMPUTES = {"train.device": "mps", "train.precision": "bfloat16", "train.checkpoint_every": 7}


def test_different_facts_have_different_fingerprints() -> None:
    facts = {"seed": 0, "train": {"steps": 10, "batch_size": 5}}
    assert fingerprint(facts) == fingerprint({"train": {"batch_size": 5, "steps": 10}, "seed": 0})
    assert fingerprint(facts) != fingerprint(facts | {"seed": 1})
    assert fingerprint(facts) != fingerprint(facts | {"threads": 2})


Print = Callable[..., str]


@pytest.fixture
def of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Print:
    """The fingerprint that `train` has for the reference recipe with some parameters changed."""
    monkeypatch.chdir(tmp_path)
    files = {split: tmp_path / f"{split}.safetensors" for split in ("train", "validation", "test")}
    for split, file in files.items():
        file.write_text(split)
    Path("code.py").write_text("x = 1")
    Path("dvc.yaml").write_text("stages: {train: {deps: [code.py, train.safetensors]}}")

    def of(
        device: str = "cpu", precision: str = "float32", wavefront: bool = False, **params: object
    ) -> str:
        changed = load(REFERENCE_RECIPE, params)
        return fingerprint(train._facts(changed, files, torch.device(device), precision, wavefront))

    return of


def another(value: object) -> object:
    if isinstance(value, str):
        return OTHERS[value]
    if isinstance(value, bool):
        return not value
    return value + 2 if isinstance(value, int) else 0.25


def test_a_training_with_another_parameter_has_another_fingerprint(of: Print) -> None:
    params = flatten(load(REFERENCE_RECIPE).model_dump())
    decides = [key for key in params if key.startswith(DECIDES) and key not in COMPUTES]
    prints = {of(), *(of(**{key: another(params[key])}) for key in decides)}
    assert len(prints) == 1 + len(decides)
    assert of(**COMPUTES) == of()  # `train` has chosen the device and the precision already


def test_a_training_in_other_circumstances_has_another_fingerprint(
    of: Print, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is undone before the next: data, code, versions, device, precision, threads."""
    prints = [of(), of("mps"), of(precision="bfloat16")]
    for name in ("train.safetensors", "validation.safetensors", "test.safetensors", "code.py"):
        before = Path(name).read_text()
        Path(name).write_text(before + "0")
        prints.append(of())
        Path(name).write_text(before)
    Path("code.py").write_text("# why\nx = (1\n)")
    assert of() == prints[0]
    for found in ({}, {"torch": "1"}, {"numpy": "1"}, {"safetensors": "1"}, {"triton": "1"}):
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "version", lambda name, found=found: found.get(name, "0"))
            prints.append(of(wavefront=True))  # its kernels are made by triton
    with monkeypatch.context() as patch:
        patch.setattr("platform.python_version", lambda: "3.0.0")
        prints.append(of())
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        prints.append(of())
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    prints.append(of())
    torch.set_num_threads(threads)
    assert of() == prints[0]
    assert len(set(prints)) == len(prints)


def test_a_comment_does_not_change_the_digest_of_code(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    digests = []
    for text in ("x = 1 + 2\n", "# why\nx = (1 +\n     2)\n", "x = 1 + 3\n"):
        source.write_text(text)
        digests.append(code_digest([source]))
    assert digests[0] == digests[1] != digests[2]
    for content in (b"x = 1 # \xe4\n", b"x = 2 # \xe4\n", b"x = '\0'\n"):  # no Python
        source.write_bytes(content)
        digests.append(code_digest([source]))
    assert len(set(digests)) == 5
