"""CONTRIBUTING.md: its picture shows the import rule, and its recipe for pooling works."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from samples import PROJECT, REFERENCE_RECIPE
from test_layout import LEVELS, ROOMS

from mnist_lstm.data.datasets import DATASETS, FILES
from mnist_lstm.data.idx import read_pair
from mnist_lstm.data.sequences import Batches, Sequences
from mnist_lstm.learning.evaluation import read_row_by_row
from mnist_lstm.learning.fit import fit
from mnist_lstm.learning.model import infer

PAGE = (PROJECT / "CONTRIBUTING.md").read_text()


def test_the_picture_is_the_table_of_the_import_rule() -> None:
    first = "    " + LEVELS[0][0]
    picture = PAGE[PAGE.index(f"\n{first}") + 1 :].split("\n\n")[0]
    rooms = [
        re.findall(r"\w+", line.split("   " * 9)[0])[: len(level)]
        for line, level in zip(picture.splitlines(), LEVELS, strict=True)
    ]
    assert [set(line) for line in rooms] == [set(level) for level in LEVELS]
    assert {room for line in rooms for room in line} == ROOMS


def test_the_recipe_for_a_stage_names_the_tests_that_list_all_stages() -> None:
    section = PAGE.split("\n## Add a stage\n")[1].split("\n## ")[0]
    for path in (PROJECT / "tests" / "pipeline").glob("test_*.py"):
        text = path.read_text()
        if "stages_run(" in text and re.search(r'"evaluate"[])]', text):
            assert f"`tests/pipeline/{path.name}`" in section


class Recipe:
    """The blocks of a section that are marked as diff: edits whose context lines give the place."""

    def __init__(self, heading: str) -> None:
        section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        self.edits: list[tuple[str, str, str]] = []
        for block in re.findall(r"(?ms)^```diff\n(.*?)^```$", section):
            header, *lines = block.splitlines()
            before = [line[1:] for line in lines if line[0] in " -"]
            after = [line[1:] for line in lines if line[0] in " +"]
            self.edits.append((header.removeprefix("--- "), "\n".join(before), "\n".join(after)))

    @property
    def files(self) -> set[str]:
        return {name for name, _, _ in self.edits}

    def apply(self, folder: Path) -> None:
        for name, before, after in self.edits:
            path = folder / name
            text = path.read_text()
            places = text.count(f"{before}\n")
            assert places == 1, (
                f"CONTRIBUTING.md edits {name} where it has these lines, which are there "
                f"{places} times by now; correct the recipe:\n{before}"
            )
            path.write_text(text.replace(f"{before}\n", f"{after}\n"))


def _load(path: Path) -> ModuleType:
    """Import a module from another folder, under a name that hides no module of the project."""
    spec = importlib.util.spec_from_file_location(f"patched_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks types up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the files that the recipe edits, after its edits."""
    folder, recipe = tmp_path_factory.mktemp("patched"), Recipe("Add a way of pooling")
    assert {name.rpartition("/")[2] for name in recipe.files} == {
        *("model.py", "params.py", "params.yaml"),
    }
    for name in recipe.files:
        source = REFERENCE_RECIPE if name == "params.yaml" else PROJECT / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    recipe.apply(folder)
    yield folder
    for name in ("patched_model", "patched_params"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sequences]:
    """The digits to train on and the digits to test with."""
    folder, dataset = tmp_path_factory.mktemp("digits"), DATASETS["digits"]
    assert dataset.make
    for name, content in dataset.make().items():
        (folder / name).write_bytes(content)
    return [
        Sequences(*map(torch.from_numpy, read_pair(folder / a, folder / b, 10)), 10, "digits", {})
        for a, b in (FILES[:2], FILES[2:])
    ]


def test_attention_by_the_recipe_learns_the_digits(
    patched: Path, digits: Sequence[Sequences]
) -> None:
    params = _load(patched / "src/mnist_lstm/pipeline/params.py").load(patched / "params.yaml")
    assert params.model.pooling == "attention"
    row_lstm = _load(patched / "src/mnist_lstm/learning/model.py").RowLSTM
    train, test = digits
    settings = params.model.model_dump() | {"hidden_size": 32}
    model = row_lstm(input_size=8, num_classes=10, num_rows=8, **settings)
    initial = model.score.weight.clone()
    optimizer = torch.optim.Adam((w for w in model.parameters() if w.requires_grad), 0.01)
    batches = Batches(len(train), 64, torch.Generator().manual_seed(0))
    steps = fit(
        model,
        optimizer,
        batches,
        *(train, test, test),
        start=0,
        steps=80,
        eval_every=80,
        eval_batch_size=1000,
    )
    (evaluation,) = [each for each in steps if each]
    assert evaluation.test_accuracy > 0.6
    assert not torch.equal(model.score.weight, initial)

    model.save(patched / "model.safetensors")
    loaded = row_lstm.load(patched / "model.safetensors").eval()
    answers = infer(loaded, test.pixels, 1000)
    assert torch.equal(answers, infer(model, test.pixels, 1000))
    by_rows = read_row_by_row(loaded, [test.pixels])
    assert torch.allclose(by_rows[:, -1], answers, atol=1e-5)


def test_the_recipe_leaves_other_models_as_they_are(patched: Path) -> None:
    row_lstm = _load(patched / "src/mnist_lstm/learning/model.py").RowLSTM
    from mnist_lstm.learning.model import RowLSTM

    settings = {"input_size": 8, "num_classes": 10, "hidden_size": 8, "num_layers": 2}
    weights = []
    for made in (RowLSTM, row_lstm):
        torch.manual_seed(0)
        model = made(**settings, dropout=0.5, forget_bias=1.0, implementation="fused")
        weights.append(model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_recipe_that_no_longer_fits_says_what_to_correct(tmp_path: Path) -> None:
    recipe = Recipe("Add a way of pooling")
    for name in recipe.files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something else\n")
    with pytest.raises(AssertionError, match="which are there 0 times by now; correct the recipe"):
        recipe.apply(tmp_path)
