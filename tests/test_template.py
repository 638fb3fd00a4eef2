"""docs/template.md: a model that has what its table lists, and no more, does all the work."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from dvc.repo import Repo
from safetensors import safe_open
from safetensors.torch import save_file
from samples import PROJECT, REFERENCE_RECIPE, drawn
from torch import Tensor, nn

import evaluate
from mnist_lstm.learning import build, precision
from mnist_lstm.learning.fit import fit
from mnist_lstm.runs import predictor, servable
from mnist_lstm.runs.history import History
from mnist_lstm.serving.classifier import BusyClassifier


class Another(nn.Module):
    """Adds up what it finds in each row."""

    precision = "float32"
    can_be_a_wavefront = False
    is_causal = True

    def __init__(self, *, input_size: int, num_classes: int, num_rows: int, units: int) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "num_classes": num_classes, "num_rows": num_rows}
        self.config = {**sizes, "units": units, "implementation": "sum"}
        self.found = nn.Parameter(torch.randn(num_rows, input_size, units) / 10)
        self.head = nn.Linear(units, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.after_each_row(pixels)[:, -1]

    def after_each_row(self, pixels: Tensor) -> Tensor:
        found = torch.einsum("btd,tdu->btu", pixels.float() / 255, self.found)
        logits: Tensor = self.head(found.cumsum(dim=1))
        return logits

    def save(self, path: Path) -> None:
        save_file(self.state_dict(), path, {"model": json.dumps(self.config)})

    @staticmethod
    def load(path: Path) -> "Another":
        with safe_open(path, framework="pt") as file:
            config, weights = json.loads(file.metadata()["model"]), file.get_tensors()
        del config["implementation"]
        model = Another(**config)
        model.load_state_dict(weights)
        return model


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with another model."""
    for module in (build, evaluate, predictor, servable):
        monkeypatch.setattr(module, "RowLSTM", Another)
    (tmp_path / "dvc.yaml").write_bytes((PROJECT / "dvc.yaml").read_bytes())
    (tmp_path / "params.yaml").write_bytes(REFERENCE_RECIPE.read_bytes())
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


@pytest.mark.parametrize("computes_in", ["auto", "bfloat16"])
def test_another_model_is_trained_evaluated_and_served(root: Path, computes_in: str) -> None:
    data = {name: drawn(images, images) for name, images in (("train", 200), ("test", 50))}
    make = partial(build.model, data["train"], torch.device("cpu"), units=4)
    computes_in = precision.choose(computes_in, make())
    learner = build.learner(
        0,
        make,
        200,
        precision=computes_in,
        wavefront=precision.is_wavefront(computes_in, make(), (20, 8, 8)),
        **{"steps": 60, "batch_size": 20, "learning_rate": 0.05, "schedule": "constant"},
        **{"averaging": 0.0, "weight_decay": 0.0},
    )
    sets = data["train"], data["test"], data["test"]
    settings = {"start": 0, "steps": 60, "eval_every": 60, "eval_batch_size": 50}
    *_, last = fit(*learner.parts, *sets, **settings)
    assert last.test_accuracy > 0.9

    learner.model.save(file := root / "model.safetensors")
    model = evaluate.load_model(file, torch.device("cpu"), computes_in)
    answers = evaluate.answers_of(model, 1, 20, {"test": data["test"]})["test"]
    right = (answers.last.argmax(dim=1) == data["test"].labels).float().mean()
    assert right == pytest.approx(last.test_accuracy)
    assert evaluate.robustness(model, data["test"], 20)

    history, notes = History(root), list[str]()
    served = servable.of(history, predictor.of_file(history, file), notes.append)
    reason = "the model has no layers, of which the page makes an LSTM"
    assert notes[-1] == f"no page to draw in: {reason}"
    served.write(root / "served")
    again = servable.read(root / "served")
    assert "no page" in again.page
    pixels = data["test"].pixels
    with torch.inference_mode():
        assert torch.allclose(BusyClassifier(again).model(pixels), answers.last, atol=1e-5)


def test_it_has_no_more_than_the_table_lists() -> None:
    page = (PROJECT / "docs" / "template.md").read_text()
    table = page.split("| Needed | By |")[1].split("\n\n")[0]
    own = {name for name in vars(Another) if not name.startswith("_")} | {"config", "head"}
    assert {name for name in own if f"`{name}" not in table} == set()
