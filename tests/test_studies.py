"""Studies: their tables, and docs/accuracy.md, which has them."""

from types import ModuleType

import pytest
from samples import PROJECT

from benchmarks import candidates, cells, fast, images, studies


@pytest.mark.parametrize(
    "module", [cells, images, fast, candidates], ids=lambda module: module.__name__
)
def test_the_accuracy_page_has_the_table_of_all_trainings_on_one_machine(
    module: ModuleType,
) -> None:
    study = module.STUDY
    rows = study.read()
    expected = [(name, str(seed)) for name in study.choices for seed in range(study.seeds)]
    found = [(row["choice"], row["seed"]) for row in rows]
    assert found == expected
    assert len({(row["device"], row["precision"]) for row in rows}) == 1
    assert len({row["model_sha256"] for row in rows}) == len(rows)
    assert study.table() in (PROJECT / "docs" / "accuracy.md").read_text()


def test_the_table_has_means_and_deviations() -> None:
    rows = [
        {"choice": "a", "validation_accuracy": right, "test_accuracy": "1", "validation_loss": loss}
        for right, loss in (("0.98", "0.25"), ("0.99", "0.35"))
    ]
    assert studies.table(rows, "kind", {"a": "one", "b": "not yet"}) == (
        "| kind | validation images | test images | validation loss |\n|---|---|---|---|\n"
        "| one | 98.50% ± 0.71 | 100.00% ± 0.00 | 0.3000 ± 0.0707 |"
    )
