import json
import math
import re
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from mutations import DAMAGE, Damage, damaged, few_or_many, fuzz, memory, what_it_says
from samples import small_model

from mnist_lstm import UserError
from mnist_lstm.learning import model as model_module
from mnist_lstm.learning.layers import dropout
from mnist_lstm.learning.model import Classifier, RowLSTM, accuracy, infer
from mnist_lstm.pipeline.params import ModelParams


def reference_model(implementation: str = "fused") -> RowLSTM:
    return small_model(implementation, input_size=28, num_classes=10, hidden_size=256)


def pixels(batch: int, rows: int = 28, width: int = 28, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, rows, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("batch", "rows", "seed"), [(1, 1, 0), (3, 28, 1), (16, 28, 2), (7, 45, 3)]
)
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_fused_and_unrolled_agree(batch: int, rows: int, seed: int, training: bool) -> None:
    fused, unrolled = reference_model("fused"), reference_model("unrolled")
    unrolled.load_state_dict(fused.state_dict())
    labels = torch.randint(0, 10, (batch,))
    logits, gradients = [], []
    for model in (fused.train(training), unrolled.train(training)):
        torch.manual_seed(seed)  # of the dropout masks
        logits.append(model(pixels(batch, rows, seed=seed)))
        F.cross_entropy(logits[-1], labels).backward()
        gradients.append([w.grad for w in model.parameters() if w.requires_grad])
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)
    assert max(float(g.abs().max()) for g in gradients[0]) > 1e-3  # or the tolerance says nothing


def test_initial_weights_have_the_reference_distributions() -> None:
    model = reference_model()
    for layer, inputs in zip(model.layers, (28, 256), strict=True):
        bound = math.sqrt(6 / (inputs + 256 + 4 * 256))
        for weights in (layer.weight_ih_l0, layer.weight_hh_l0):
            assert weights.abs().max() <= bound
            assert weights.abs().max() > 0.99 * bound
            # a uniform distribution's standard deviation, and a mean within four of its errors
            assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
            assert abs(weights.mean().item()) < 4 * bound / math.sqrt(3 * weights.numel())
        i, f, g, o = layer.bias_ih_l0.chunk(4)
        assert (f == 1).all()
        assert all((bias == 0).all() for bias in (i, g, o, layer.bias_hh_l0))
    head = model.head.weight
    assert head.abs().max() <= 0.2
    assert head.abs().max() > 0.19
    # σ of a normal distribution cut at 2σ: 0.8796 of the whole one's
    assert head.std().item() == pytest.approx(0.08796, rel=0.03)
    assert abs(head.mean().item()) < 4 * 0.08796 / math.sqrt(head.numel())
    assert (model.head.bias == 0.1).all()


def test_gates_have_one_bias_that_learns() -> None:
    model = small_model()
    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=0.1)
    F.cross_entropy(model(pixels(4, 8, 8)), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    for layer in model.layers:
        assert (layer.bias_hh_l0 == 0).all()
        assert (layer.bias_ih_l0 != 0).all()


def test_dropout_masks_each_step_and_layer_and_never_the_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(x: torch.Tensor, fraction: float, of: None) -> torch.Tensor:
        y = dropout(x, fraction, of)
        seen.append((x.detach(), y.detach()))
        return y

    monkeypatch.setattr(model_module, "dropout", watched)
    model = small_model().train()
    logits = model(pixels(5, 8, 8))

    assert len(seen) == 2  # one a layer, the top one's included
    for before, after in seen:
        kept = after != 0
        assert 0.4 < kept.float().mean() < 0.6
        torch.testing.assert_close(after[kept], 2 * before[kept])
        assert not (kept == kept[:, :1]).all()  # another mask at each time step
    # the recurrent state is not dropped: a layer's outputs before dropout are those without dropout
    torch.testing.assert_close(seen[0][0], model.run_layer(model.layers[0], pixels(5, 8, 8) / 255))
    torch.testing.assert_close(seen[1][0], model.run_layer(model.layers[1], seen[0][1]))
    torch.testing.assert_close(logits, model.head(seen[1][1][:, -1]))


def test_evaluation_keeps_all() -> None:
    model = small_model().eval()
    assert torch.equal(model(pixels(3, 8, 8)), model(pixels(3, 8, 8)))


def test_the_order_of_rows_matters() -> None:
    model = small_model().eval()
    assert not torch.allclose(model(pixels(3, 8, 8)), model(pixels(3, 8, 8).flip(1)))


def test_infer_is_the_same_in_parts_and_leaves_the_mode() -> None:
    model = small_model().train()
    whole = infer(model, pixels(10, 8, 8), 10)
    torch.testing.assert_close(infer(model, pixels(10, 8, 8), 3), whole)
    assert model.training
    assert whole.shape == (10, 2)


def test_classifier_answers_with_probabilities() -> None:
    model = small_model().eval()
    probabilities = Classifier(model)(pixels(3, 8, 8))
    torch.testing.assert_close(probabilities, model(pixels(3, 8, 8)).softmax(1))


def test_a_saved_model_comes_back(tmp_path) -> None:
    model = small_model(num_layers=3).eval()
    model.save(tmp_path / "model.safetensors")
    again = RowLSTM.load(tmp_path / "model.safetensors").eval()
    assert torch.equal(model(pixels(3, 8, 8)), again(pixels(3, 8, 8)))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == (
        tmp_path / "again.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, None])
def test_a_file_that_is_no_model_is_refused(tmp_path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: .*dvc repro"):
        RowLSTM.load(path)


@pytest.mark.parametrize(
    "claim",
    [{"input_size": 10**6}, {"hidden_size": 2000}, {"num_layers": 10**9}, {"num_classes": 10**7}],
)
def test_no_memory_is_taken_for_what_a_configuration_claims(
    tmp_path, claim: dict[str, int]
) -> None:
    model = small_model()
    model.config |= claim
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"not th.+ of its configuration"), memory(2**24):
        RowLSTM.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("claim", [{"forget_bias": 10**400}, {"hidden_size": 10**30}])
def test_numbers_too_large_for_torch_are_refused(tmp_path, claim: dict[str, int]) -> None:
    model = small_model()
    model.config |= claim
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"not a model as train writes it") as met:
        RowLSTM.load(tmp_path / "model.safetensors")
    assert len(str(met.value)) < 500


@pytest.mark.parametrize("key", model_module.CHOICES)
def test_a_choice_that_does_not_exist_is_refused(tmp_path, key: str) -> None:
    choices = get_args(ModelParams.model_fields[key].annotation)
    assert model_module.CHOICES[key] == choices
    for claim in ([], {}, None, 2, "diagonal"):
        model = small_model()
        model.config |= {key: claim}
        model.save(tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=f"its {key} is {re.escape(json.dumps(claim))}"):
            RowLSTM.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_another_type_are_not_converted(tmp_path, dtype: torch.dtype) -> None:
    small_model().to(dtype).save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"its head\.bias is not that of its configuration"):
        RowLSTM.load(tmp_path / "model.safetensors")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
@few_or_many
def test_mutated_files_are_read_correctly_or_refused(tmp_path, cases) -> None:
    path, refusals, read = tmp_path / "model.safetensors", [], 0
    small_model(hidden_size=4).save(path)
    content = path.read_bytes()

    @fuzz(cases)
    @given(DAMAGE)
    def check(damage: Damage) -> None:
        nonlocal read
        file = damaged(content, damage)
        path.write_bytes(file)
        try:
            with memory(2**24):
                found = RowLSTM.load(path)
        except UserError as refusal:
            refusals.append(str(refusal))
        else:
            read += 1
            metadata, arrays = what_it_says(file)
            assert found.config == json.loads(metadata["model"])
            weights = {name: weight.numpy() for name, weight in found.state_dict().items()}
            assert weights.keys() == arrays.keys()
            for name, weight in weights.items():
                np.testing.assert_array_equal(weight, arrays[name], strict=True)

    check()
    assert len(refusals) > cases / 2
    assert read > cases / 100
    # what torch says where there is no room for what a header claims
    assert not any("\n" in line or "allocate" in line for line in refusals)


def test_accuracy_is_a_fraction() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert accuracy(logits, torch.tensor([1, 0, 0], dtype=torch.uint8)) == pytest.approx(2 / 3)


BEYOND = [
    {"reads": "columns", "num_rows": 10},
    {"reads": "both", "num_rows": 10, "pooling": "mean"},
    {"directions": "both"},
    {"directions": "both", "reads": "both", "num_rows": 10, "recurrent_init": "orthogonal"},
    {"pooling": "mean"},
    {"cell": "gru"},
    {"cell": "rnn"},
    {"cell": "gru", "directions": "both", "reads": "both", "num_rows": 10, "pooling": "mean"},
    {"cell": "rnn", "directions": "both", "recurrent_init": "orthogonal"},
    {"window": 3},
    {"window": 5, "reads": "both", "num_rows": 10, "pooling": "mean"},
]


def beyond(implementation: str = "fused", **settings: object) -> RowLSTM:
    return small_model(implementation, input_size=7, hidden_size=6, **settings)


@pytest.mark.parametrize("settings", BEYOND, ids=str)
def test_fused_and_unrolled_agree_beyond_the_reference(settings: dict[str, object]) -> None:
    fused, unrolled = beyond("fused", **settings), beyond("unrolled", **settings)
    unrolled.load_state_dict(fused.state_dict())
    logits = []
    for model in (fused, unrolled):
        torch.manual_seed(0)  # of the dropout masks
        logits.append(model(pixels(4, 10, 7)))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", BEYOND, ids=str)
def test_models_beyond_the_reference_are_saved_and_loaded(tmp_path, settings) -> None:
    model = beyond(**settings)
    model.save(tmp_path / "model.safetensors")
    loaded = RowLSTM.load(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert torch.equal(infer(loaded, pixels(4, 10, 7), 4), infer(model, pixels(4, 10, 7), 4))


def test_the_references_configuration_names_nothing_beyond_it() -> None:
    assert not set(reference_model().config) & set(model_module.BEYOND)
    assert beyond(reads="rows", num_rows=10).config == beyond().config


@pytest.mark.parametrize("settings", [{}, *BEYOND], ids=str)
def test_after_each_row_ends_in_the_answer_and_begins_without_the_rest(settings) -> None:
    model = beyond(**settings).eval()
    images = pixels(4, 10, 7)
    others = images.clone()
    others[:, 6:] = pixels(4, 4, 7, seed=9)
    with torch.inference_mode():
        after, of_others = model.after_each_row(images), model.after_each_row(others)
        assert after.shape == (4, 10, 2)
        assert torch.equal(after[:, -1], model(images))
    assert torch.equal(after[:, :6], of_others[:, :6])
    assert not torch.equal(after[:, 6:], of_others[:, 6:])


def test_columns_are_rows_of_the_transposed_image() -> None:
    of_rows, of_columns = beyond(), beyond(reads="columns", num_rows=7)
    of_columns.load_state_dict(of_rows.state_dict())
    images = pixels(3, 7, 7)
    assert torch.equal(infer(of_rows, images.mT.contiguous(), 3), infer(of_columns, images, 3))


def test_both_directions_end_where_each_has_read_all() -> None:
    model = beyond(directions="both", num_layers=1, dropout=0.0)
    images = pixels(3, 10, 7)
    (layer,) = model.layers
    with torch.inference_mode():
        _, (ends, _) = layer(images.float() / 255)  # (2, B, H)
        expected = model.head(torch.cat(list(ends), dim=1))
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)


def test_mean_pooling_gives_the_mean_of_all_outputs() -> None:
    model = beyond(pooling="mean", num_layers=1, dropout=0.0)
    images = pixels(3, 10, 7)
    (layer,) = model.layers
    with torch.inference_mode():
        outputs, _ = layer(images.float() / 255)
        expected = model.head(outputs.mean(dim=1))
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)


def test_a_wider_window_adds_only_weights_of_the_neighbours() -> None:
    narrow, wide = beyond(), beyond(window=3)
    weights = narrow.state_dict()
    first = next(name for name in weights if name.endswith("weight_ih_l0"))
    weights[first] = F.pad(weights[first], (7, 7))  # nothing of the neighbours
    wide.load_state_dict(weights)
    images = pixels(3, 10, 7)
    torch.testing.assert_close(infer(wide, images, 3), infer(narrow, images, 3), rtol=0, atol=1e-6)


def test_orthogonal_gates_keep_lengths() -> None:
    for layer in beyond(recurrent_init="orthogonal", directions="both").layers:
        for _, w_hh, *_ in layer.all_weights:
            for gate in w_hh.chunk(4):
                torch.testing.assert_close(gate @ gate.mT, torch.eye(6), rtol=0, atol=1e-5)
