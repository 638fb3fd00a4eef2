"""Whether a run that was made again came out the same, and if not, what tells them apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# a fraction of the images: five seeds of the reference recipe, which are as far apart as rounding
# in another order leaves two trainings in the end, lie within 0.42 % (README.md)
TOLERANCE = 0.005
VERSIONS = ("python", "torch", "numpy", "safetensors")


@dataclass(frozen=True)
class Made:
    """A training and its evaluation: run.json of the one, metrics.json and params of the other."""

    about: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`identical`: the same weights, bit for bit. `close`: accuracies within the tolerance.

    `reasons` say what may have made a difference, and what did.
    """

    outcome: Literal["identical", "close", "different"]
    reasons: list[str]


def judge(then: Made, now: Made, tolerance: float) -> Verdict:
    """Compare a run with its repetition; `tolerance` is of accuracies, a fraction of the images."""
    reasons = circumstances(then, now)
    if then.about["model_sha256"] == now.about["model_sha256"]:
        return Verdict("identical", reasons)
    other_data = _data(then) != _data(now)
    if not reasons:
        same = then.about["fingerprint"] == now.about["fingerprint"]
        reasons.append(
            "nothing that was recorded differs: something that has no record changes the results"
            if same
            else "the code is not what ran then, though commit and patch are its own: something "
            "outside of them changed it"
        )
    apart = _apart(then.metrics, now.metrics)
    if not apart:
        return Verdict("different", [*reasons, "there is no evaluation of it to compare with"])
    reasons += [
        f"{split} accuracy differs by {difference:.2%}, more than the tolerance of {tolerance:.2%}"
        for split, difference in apart.items()
        if difference > tolerance
    ]
    within = max(apart.values()) <= tolerance
    return Verdict("close" if within and not other_data else "different", reasons)


def circumstances(then: Made, now: Made) -> list[str]:
    """What was not the same of data, device, precision, threads and versions, a sentence each."""
    reasons = []
    before, after = _data(then), _data(now)
    others = [split for split in before if before[split] != after.get(split)]
    if others:
        reasons.append(f"the data is another: the SHA-256 of {', '.join(others)} is not its own")
    for key in ("device", "precision", "threads"):
        if then.about[key] != now.about[key]:
            reasons.append(f"{key}: {then.about[key]} then, {now.about[key]} now")
    for package in VERSIONS:
        was, is_now = then.about["versions"].get(package), now.about["versions"].get(package)
        if was != is_now:
            reasons.append(f"version of {package}: {was} then, {is_now} now")
    return reasons


def rows(then: Made, now: Made) -> list[list[str]]:
    """What was and what is, as a table."""
    found = [["", "then", "now"]]
    found.append(["weights", *(one.about["model_sha256"][:16] for one in (then, now))])
    for split in _data(then):
        found.append([f"{split} data", *(_data(one).get(split, "–")[:16] for one in (then, now))])
    for split in then.metrics:
        for name, form in (("accuracy", ".2%"), ("loss", ".5f")):
            values = [one.metrics.get(split, {}).get(name) for one in (then, now)]
            found.append(
                [f"{split} {name}", *("–" if v is None else f"{v:{form}}" for v in values)]
            )
    for key in ("device", "precision", "threads"):
        found.append([key, *(str(one.about[key]) for one in (then, now))])
    for package in VERSIONS:
        found.append([package, *(one.about["versions"].get(package, "–") for one in (then, now))])
    return found


def _data(made: Made) -> dict[str, str]:
    return {split: one["sha256"] for split, one in made.about["data"].items()}


def _apart(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, float]:
    """How far the accuracies are apart, by split."""
    return {
        split: abs(then[split]["accuracy"] - now[split]["accuracy"])
        for split in then
        if split in now
    }
