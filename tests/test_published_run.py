"""The committed run is the published one: recipe, results, and what the README says of them.

Delete this file in a project of your own: docs/template.md.
"""

import hashlib
import json
import re

import pytest
import yaml
from samples import PROJECT, REFERENCE_RECIPE

from mnist_lstm.pipeline.result_files import read_rows

README = (PROJECT / "README.md").read_text()


def test_the_recipe_is_the_reference() -> None:
    schema, _, *here = (PROJECT / "params.yaml").read_text().splitlines()  # second, what it is for
    same_schema, _, *reference = REFERENCE_RECIPE.read_text().splitlines()
    assert [schema, *here] == [same_schema, *reference]


def test_the_readme_has_its_accuracy() -> None:
    (said,) = re.findall(r"run committed here reaches (\S+) %", README)
    metrics = json.loads((PROJECT / "results" / "evaluate" / "metrics.json").read_text())
    assert said == f"{metrics['test']['accuracy']:.2%}".removesuffix("%")


@pytest.mark.parametrize("name", ["curve.png", "belief.png"])
def test_the_readme_has_its_picture(name: str) -> None:
    lock = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]["evaluate"]
    md5 = {out["path"]: out["md5"] for out in lock["outs"]}[f"results/evaluate/{name}"]
    assert hashlib.md5((PROJECT / "docs" / name).read_bytes()).hexdigest() == md5


def test_it_is_seed_0_of_the_reproduction() -> None:
    curves = read_rows(PROJECT / "benchmarks" / "reproduction.csv")
    run = read_rows(PROJECT / "results" / "train" / "curve.csv")
    assert [{"seed": 0} | row for row in run] == [row for row in curves if row["seed"] == 0]
