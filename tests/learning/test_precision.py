from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from samples import drawn, small_model

import evaluate
from mnist_lstm import UserError
from mnist_lstm.learning import precision
from mnist_lstm.learning.evaluation import read_row_by_row
from mnist_lstm.learning.model import RowLSTM, infer


def refuse_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch fail as it does if oneDNN has no LSTM in bfloat16 for the processor."""

    def run_layer(_: torch.nn.LSTM, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive descriptor for the LSTM forward …")
        return x.sum(dim=2, keepdim=True).expand(-1, -1, 16)

    monkeypatch.setitem(RowLSTM.__init__.__globals__["IMPLEMENTATIONS"], "fused", run_layer)


def on_gpu(monkeypatch: pytest.MonkeyPatch, *capability: int) -> RowLSTM:
    """A model that seems to be on a GPU of this compute capability, where bfloat16 works."""
    model = small_model("unrolled")
    monkeypatch.setattr(precision, "works", lambda _: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.nn.Parameter, "device", torch.device("cuda"))
    return model


def test_auto_is_float32_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Mapping[str, Any] = {"avx512_bf16": True, "amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    model = small_model("unrolled")
    assert precision.works(model)
    assert precision.choose("auto", model) == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_auto_is_bfloat16_on_a_gpu_where_that_is_native(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    assert precision.choose("auto", on_gpu(monkeypatch, *capability)) == expected


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_named_precision_is_used_or_refused(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    assert precision.choose("float32", small_model(cell=cell)) == "float32"
    assert precision.choose("bfloat16", small_model("unrolled", cell=cell)) == "bfloat16"
    refuse_bfloat16(monkeypatch)
    expected = rf"bfloat16, but torch .* has no fused {cell.upper()} in bfloat16"
    with pytest.raises(UserError, match=expected):
        precision.choose("bfloat16", small_model(cell=cell))


@pytest.mark.parametrize("beyond", [{}, {"reads": "both", "num_rows": 5}], ids=str)
def test_works_leaves_the_model_as_it_was(beyond: dict[str, Any]) -> None:
    model = small_model("unrolled", **beyond)
    assert precision.works(model)
    assert model.precision == "float32"
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_in_bfloat16_products_are_rounded_and_weights_and_answers_are_float32() -> None:
    model, data = small_model("unrolled", dropout=0.0), drawn(30, seed=1)
    expected = model(data.pixels)
    model.precision = "bfloat16"
    logits = model(data.pixels)
    assert logits.dtype == torch.float32
    # 8 bits of mantissa: near, and not the same
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.02)
    assert not torch.equal(logits, expected)
    F.cross_entropy(logits, data.labels.long()).backward()
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in learning} == {torch.float32}
    assert {weight.grad.dtype for weight in learning if weight.grad is not None} == {torch.float32}


def test_rows_read_in_bfloat16_end_in_the_answers_bit_for_bit() -> None:
    model, data = small_model("unrolled"), drawn(30, seed=1)
    model.precision = "bfloat16"
    logits = read_row_by_row(model, data.pixels.split(20))
    assert torch.equal(logits[:, -1], infer(model, data.pixels, 20))


def test_evaluate_tries_bfloat16_on_the_device_of_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A processor may compute it where the GPU does not, and the other way round."""
    small_model().save(path := tmp_path / "model.safetensors")
    monkeypatch.setattr(precision, "works", lambda model: model.head.weight.device.type == "meta")
    for device, computes_in in (("meta", "bfloat16"), ("cpu", "float32")):
        model = evaluate.load_model(path, torch.device(device), "bfloat16")
        assert (model.head.weight.device.type, model.precision) == (device, computes_in)
    assert capsys.readouterr().out == (
        "trained in bfloat16, evaluated in float32: bfloat16 does not work here\n"
    )


def test_a_device_whose_memory_is_full_is_not_one_without_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model("unrolled")

    def forward(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        precision.works(model)
    assert model.precision == "float32"
