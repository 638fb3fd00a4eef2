"""Compare a run with its repetition: are the weights the same, and if not, what differs?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mnist_lstm.pipeline.result_files import FinishedRecord

# a fraction of the images. Five seeds of the reference recipe end within 0.48 points of each other
# on validation images, 0.19 on test images (benchmarks/reproduction.csv). Trainings that only round
# in another order end about as far apart as trainings of other seeds
TOLERANCE = 0.005
WITHOUT_EFFECT = ("mlflow", "dvc")  # on the weights; run.json names their versions too
CIRCUMSTANCES = ("device", "precision", "threads")


@dataclass(frozen=True)
class RunResults:
    """A training's run.json, and the metrics.json and parameters of its latest evaluation.

    `from_store`: all of it was read from MLflow, where others may write.
    """

    record: FinishedRecord
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluation_params: Mapping[str, Any] = field(default_factory=dict)
    from_store: bool = False


@dataclass(frozen=True)
class ReproductionOutcome:
    """`identical`: the same weights, bit for bit. `close`: accuracies within the tolerance.

    `reasons` names the differences and their possible causes.
    """

    outcome: Literal["identical", "close", "different"]
    reasons: list[str]


def compare(then: RunResults, now: RunResults, tolerance: float) -> ReproductionOutcome:
    """Compare a run with its repetition. Accuracies may differ by `tolerance`, a fraction."""
    reasons = differences(then, now)
    if then.record.model_sha256 == now.record.model_sha256:
        return ReproductionOutcome("identical", reasons)
    other_data = _data(then) != _data(now)
    if not reasons:
        same = then.record.fingerprint == now.record.fingerprint
        reasons.append(
            "nothing that run.json records differs: the cause is something that it does not record"
            if same
            else "the code differs, although commit and patch are those of the run: something "
            "outside of them changed it"
        )
    distances = _distances(then.metrics, now.metrics)
    if not distances:
        no_evaluation = "the run has no evaluation to compare with"
        return ReproductionOutcome("different", [*reasons, no_evaluation])
    reasons += [
        f"{split} accuracy differs by {distance:.2%}, more than the tolerance of {tolerance:.2%}"
        for split, distance in distances.items()
        if distance > tolerance
    ]
    within = max(distances.values()) <= tolerance
    return ReproductionOutcome("close" if within and not other_data else "different", reasons)


def differences(then: RunResults, now: RunResults) -> list[str]:
    """The differences in data, device, precision, threads and versions, each as one sentence."""
    reasons = []
    before, after = _data(then), _data(now)
    others = [split for split in before if before[split] != after.get(split)]
    if others:
        reasons.append(f"the data differs: the SHA-256 of {', '.join(others)} is not the run's")
    for key in CIRCUMSTANCES:
        value, new_value = getattr(then.record, key), getattr(now.record, key)
        if value != new_value:
            reasons.append(f"{key}: {value} then, {new_value} now")
    for package in _packages(then, now):
        version, new_version = (each.record.versions.get(package, "none") for each in (then, now))
        if version != new_version:
            reasons.append(f"version of {package}: {version} then, {new_version} now")
    return reasons


def _packages(then: RunResults, now: RunResults) -> list[str]:
    """What the weights depend on: Python, torch and others; on some GPUs Triton too."""
    every = dict.fromkeys([*then.record.versions, *now.record.versions])
    return [package for package in every if package not in WITHOUT_EFFECT]


def rows(then: RunResults, now: RunResults) -> list[list[str]]:
    """Both runs as a table, with one row for each value."""
    both = (then, now)
    table = [["", "then", "now"]]
    table.append(["weights", *(each.record.model_sha256[:16] for each in both)])
    for split in _data(then):
        table.append([f"{split} data", *(_data(each).get(split, "–")[:16] for each in both)])
    for split in then.metrics:
        for name, form in (("accuracy", ".2%"), ("loss", ".5f")):
            values = [each.metrics.get(split, {}).get(name) for each in both]
            table.append(
                [f"{split} {name}", *("–" if v is None else f"{v:{form}}" for v in values)]
            )
    for key in CIRCUMSTANCES:
        table.append([key, *(str(getattr(each.record, key)) for each in both)])
    for package in _packages(then, now):
        table.append([package, *(each.record.versions.get(package, "–") for each in both)])
    return table


def _data(results: RunResults) -> dict[str, str]:
    return {split: file.sha256 for split, file in results.record.data.items()}


def _distances(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
    """The difference of the accuracies, by split."""
    return {
        split: abs(then[split]["accuracy"] - now[split]["accuracy"])
        for split in then
        if split in now
    }
