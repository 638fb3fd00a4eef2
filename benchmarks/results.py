"""The benchmark's JSON: the measurements, and the medians that table and figure show."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

STEPS, EVALUATIONS = 2_000, 40  # the whole job of the reference recipe
DISTURBED = 1.5  # on an idle machine, the times of two blocks differ by less than this factor


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians of seconds over all rounds and the highest memory, or `{"skipped": reason}`."""
    found = [answer for answer in rounds if "skipped" not in answer]
    if len(found) < len(rounds) or not found:
        return {"skipped": next(answer["skipped"] for answer in rounds if "skipped" in answer)}
    step, evaluation = (
        median(seconds for answer in found for seconds in answer[what])
        for what in ("step", "evaluation")
    )
    added = validations(found)
    gpu = [answer["gpu_peak_bytes"] for answer in found if answer["gpu_peak_bytes"] is not None]
    return {
        "step": step,
        "evaluation": evaluation,
        "job": STEPS * step + EVALUATIONS * evaluation,
        "validation": median(added) if added else None,
        "peak_bytes": max(answer["peak_bytes"] for answer in found),
        "gpu_peak_bytes": max(gpu) if gpu else None,
    }


def validations(rounds: Sequence[Mapping[str, Any]]) -> list[float]:
    """The seconds that the validation images added to each evaluation in which this was measured.

    Records made before 2026-11-29 have one number for each round, not a list.
    """
    found: list[float] = []
    for answer in rounds:
        match answer.get("validation"):
            case list(several):
                found += several
            case float(one):
                found.append(one)
    return found


def unsteady(rounds: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """The fastest and slowest step if they differ so much that other work disturbed them."""
    steps = [seconds for answer in rounds for seconds in answer.get("step", [])]
    if not steps or max(steps) < DISTURBED * min(steps):
        return None
    return min(steps), max(steps)


def floors(contenders: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The seconds of the floor's whole job, by precision."""
    return {
        contender["precision"]: contender["summary"]["job"]
        for contender in contenders
        if contender["contender"] == "floor" and "job" in contender["summary"]
    }


def fastest_here(contenders: Sequence[Mapping[str, Any]]) -> float | None:
    """The seconds of this project's fastest whole job."""
    jobs = [
        contender["summary"]["job"]
        for contender in contenders
        if contender["contender"] == "project" and "job" in contender["summary"]
    ]
    return min(jobs, default=None)


def versions(contenders: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The versions of all libraries, as the contenders reported them."""
    told: dict[str, str] = {}
    for contender in contenders:
        for answer in contender["rounds"]:
            told |= answer.get("about", {})
    return told
