"""Samples for several test files: a few drawn digits as row sequences, and a small model."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline.params import flatten, load
from mnist_lstm.pipeline.result_files import RunRecord, SplitRecord

PROJECT = Path(__file__).parent.parent
SPACE = PROJECT / "recipes" / "search.yaml"  # of a search: no recipe
REFERENCE_RECIPE = PROJECT / "recipes" / "reference.yaml"  # params.yaml is its user's
RECIPES = sorted(set((PROJECT / "recipes").glob("*.yaml")) - {SPACE})

BEGUN = RunRecord(
    training_id="a" * 32,
    name="drawn",
    started="2026-01-02T03:04:00+00:00",
    fingerprint="f",
    dataset="drawn",
    image=(8, 8),
    data={
        split: SplitRecord(f"data/{split}", 10, letter * 64)
        for split, letter in (("train", "d"), ("test", "e"))
    },
    device="cpu",
    threads=2,
    precision="float32",
    commit="c" * 40,
    dirty=True,
    dvc_experiment=None,
    dvc_baseline=None,
    versions={"torch": "1"},
    params={
        "seed": 0,
        "model": {"num_layers": 2, "hidden_size": 16, "dropout": 0.5},
        "augment": {},
        "train": {"steps": 1000, "batch_size": 128, "learning_rate": 0.01},
    },
    patch="diff",
)
FINISHED = BEGUN.finished("2026-01-02T03:05:40+00:00", "a" * 64)


def drawn(images: int, seed: int, rows: int = 8, pixels: int = 8) -> Sequences:
    """Two classes that differ only in the order of their rows: a bar that moves down, or up."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (images,), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 40, (images, rows, pixels), generator=generator, dtype=torch.uint8)
    ramp = torch.linspace(0, 200, rows).to(torch.uint8)[None, :, None]  # dark to light
    down = labels[:, None, None].bool()
    return Sequences(noise + torch.where(down, ramp, ramp.flip(1)), labels, 2, "drawn", {})


def small_model(implementation: str = "fused", dropout: float = 0.5, **others: Any) -> RowLSTM:
    settings = {"input_size": 8, "num_classes": 2, "hidden_size": 16, "num_layers": 2} | others
    return RowLSTM(**settings, dropout=dropout, forget_bias=1.0, implementation=implementation)


def write_lock(root: Path, params: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """A dvc.lock that has what lies in results/; `params` are by stage."""
    stages: dict[str, Any] = {
        name: {"params": {"params.yaml": values}} for name, values in (params or {}).items()
    }
    for folder in (root / "results").iterdir():
        outs = [
            {"path": str(path.relative_to(root)), "md5": hashlib.md5(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
        ]
        stages.setdefault(folder.name, {})["outs"] = outs
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def catalogue() -> dict[str, list[str]]:
    """The messages in docs/errors.md, by the heading above them."""
    found: dict[str, list[str]] = {}
    for line in (PROJECT / "docs" / "errors.md").read_text().splitlines():
        if line.startswith("## "):
            lines = found.setdefault(line.removeprefix("## "), [])
        elif line.startswith("    "):
            lines.append(line.strip())
    return found


def is_the_line(line: str, met: str) -> bool:
    """Whether a message fits a line of docs/errors.md, in which `<…>` stands for anything."""
    parts = re.split(r"<[^<>]+>", line)
    return re.fullmatch(".+?".join(map(re.escape, parts)), met) is not None


def recorded_recipe(name: str) -> dict[str, Any]:
    """The parameters of recipes/results/NAME but the seed, as docs/accuracy.md records them."""
    page = (PROJECT / "docs" / "accuracy.md").read_text()
    (command,) = re.findall(rf"`mnist-lstm seeds \d+ (.+) --record recipes/results/{name}`", page)
    file, *changed = command.split(" -S ")
    changes = dict(each.split("=") for each in changed)
    return flatten(load(PROJECT / file, changes).model_dump())


def record_of_seed(
    params: Mapping[str, Any], accuracy: float = 0.5, **about: Any
) -> dict[str, Any]:
    """A record of a seed, as `mnist-lstm seeds` writes it, with these parameters by dotted key."""
    figures = {"accuracy": accuracy, "loss": 1 - accuracy}
    record = {
        "params": dict(params),
        "metrics": {"validation": figures, "test": figures},
        "seconds": 1.0,
        **{"name": "far", "training_id": "far", "commit": "e22c829" + 33 * "0", "dirty": True},
        **{"started": BEGUN.started, "ended": FINISHED.ended},
        **{"device": "cpu AVX2", "precision": "float32"},
    }
    return record | about
