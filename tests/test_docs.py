"""The generated pages are current, and the other pages agree with the files that they describe."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml
from samples import PROJECT, RECIPES, REFERENCE_RECIPE, recorded_recipe

from mnist_lstm import UserError
from mnist_lstm.pipeline.params import Params, flatten, load
from mnist_lstm.runs.seeds import summary

GENERATED = runpy.run_path(str(PROJECT / "scripts" / "docs.py"))["generated"]()
REFERENCE = flatten(load(REFERENCE_RECIPE).model_dump())
README = (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_current(name: str) -> None:
    assert (PROJECT / name).read_text() == GENERATED[name], "`make docs` brings it up to date"


def rows() -> dict[str, list[str]]:
    """The table of docs/parameters.md: the cells behind each name."""
    lines = re.findall(r"(?m)^\| `(.+?)` \| (.+) \|$", GENERATED["docs/parameters.md"])
    return {name: cells.split(" | ") for name, cells in lines}


def test_every_parameter_has_its_row_in_the_order_of_the_reference_recipe() -> None:
    reference = yaml.safe_load(REFERENCE_RECIPE.read_text())
    expected = []
    for section, values in reference.items():
        expected += (
            [f"{section}.{key}" for key in values] if isinstance(values, dict) else [section]
        )
    assert list(rows()) == expected
    assert all(cells[0] and cells[2] and cells[3] for cells in rows().values())


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("train.batch_size", ["images", "whole number ≥ 1 and < 2⁶³", "`128`"]),
        ("model.dropout", ["fraction", "number ≥ 0 and < 1", "`0.5`"]),
        ("model.implementation", ["", "`fused`, `unrolled`", "`fused`"]),
        ("preprocess.split_seed", ["", "whole number ≥ 0 and < 2⁶³ or `null`", "`null`"]),
        ("train.device", ["", "`auto`, `cpu`, `cuda`, `cuda:0`, `mps`", "`auto`"]),
    ],
)
def test_unit_range_and_reference_value(name: str, cells: list[str]) -> None:
    assert rows()[name][1:4] == cells


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("seed", "train, evaluate"),
        ("fetch.dataset", "fetch, preprocess, train, evaluate"),
        ("preprocess.split_seed", "preprocess, train, evaluate"),
        ("train.steps", "train, evaluate"),
        ("evaluate.batch_size", "evaluate"),
    ],
)
def test_the_stages_are_those_that_run_again(name: str, stages: str) -> None:
    """Real dvc says the same in tests/pipeline/test_rerun.py."""
    assert rows()[name][4] == stages


def test_the_schema_knows_every_data_set(tmp_path: Path) -> None:
    known = Params.model_json_schema()["$defs"]["FetchParams"]["properties"]["dataset"]["enum"]
    text = REFERENCE_RECIPE.read_text()
    (tmp_path / "params.yaml").write_text(text.replace("dataset: mnist", "dataset: none-such"))
    with pytest.raises(UserError, match=f"must be one of {', '.join(known)}, is 'none-such'"):
        load(tmp_path / "params.yaml")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_editors_find_the_schema_beside_each_recipe(recipe: Path) -> None:
    first, *_ = recipe.read_text().splitlines()
    # recipes have the same relative path, so that the line is right after `cp RECIPE params.yaml`
    assert first == "# yaml-language-server: $schema=params.schema.json"
    schema = json.loads((recipe.parent / "params.schema.json").read_text())
    assert schema == Params.model_json_schema()


def test_each_accepted_vulnerability_has_its_reason_and_is_still_there() -> None:
    (accepted,) = re.findall(r"(?m)^ACCEPTED := (.*?) #", (PROJECT / "Makefile").read_text())
    reasons = re.findall(
        r"\*\*(CVE-\S+)\*\*, in ([\w-]+)", (PROJECT / "docs/machines.md").read_text()
    )
    assert [name for name, _ in reasons] == accepted.split()
    lock = (PROJECT / "requirements.lock").read_text()
    assert all(f"\n{package}==" in lock for _, package in reasons)


@pytest.mark.parametrize("folder", sorted((PROJECT / "recipes" / "results").glob("*")), ids=str)
def test_the_accuracy_page_has_what_was_recorded(folder: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]
    recipe = recorded_recipe(folder.name)
    for number, record in enumerate(records):
        # records lack keys that were added later: these have the reference's value, which is off
        recorded = {**REFERENCE, **record["params"]}
        named = {**recorded, "train.precision": record["precision"]}  # where the recipe had auto
        assert {**recipe, "seed": number} in (recorded, named)
        *_, last = (folder / f"seed-{number}.csv").read_text().splitlines()
        assert float(last.split(",")[4]) == record["metrics"]["test"]["accuracy"]
    test, validation = (
        summary([record["metrics"][split]["accuracy"] for record in records], "accuracy")
        for split in ("test", "validation")
    )
    page = (PROJECT / "docs" / "accuracy.md").read_text()
    assert test.deviation is not None
    assert validation.deviation is not None
    assert (
        f"| {test.mean:.2%} ± {100 * test.deviation:.2f} | {validation.mean:.2%} "
        f"± {100 * validation.deviation:.2f} | {len(records)} | {recipe['train.steps']:,} |"
    ) in page
    said = re.findall(rf"`recipes/{folder.name}.yaml` reaches (\S+) %", README)
    assert said == [f"{test.mean:.2%}".removesuffix("%")] * len(said)
