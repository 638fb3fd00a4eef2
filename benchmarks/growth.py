"""Measure how time and memory grow when steps, hidden size, rows or images are doubled."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.contender import Work
from benchmarks.process import measured


def doubled(work: Work) -> Mapping[str, Work]:
    """The work as it is, and the work with each of the four sizes doubled."""
    return {
        "as it is": work,
        "steps × 2": replace(work, blocks=2 * work.blocks),
        "hidden size × 2": replace(work, hidden_size=2 * work.hidden_size),
        "rows × 2": replace(work, rows=2 * work.rows),
        "images × 2": replace(
            work,
            train_images=2 * work.train_images,
            test_images=2 * work.test_images,
            validation_images=2 * work.validation_images,
            evaluated=2 * work.evaluated,
        ),
    }


def measure(work: Work, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure this project's loop on each work, each in its own process."""
    rows = []
    for name, sized in doubled(work).items():
        say(f"growth: {name}")
        sizes = {
            "steps": sized.warm_up + sized.blocks * sized.steps,
            "hidden size": sized.hidden_size,
            "rows": sized.rows,
            "images": sized.train_images,
        }
        rows.append({"name": name, "sizes": sizes, "round": measured("project", sized)})
    return rows
