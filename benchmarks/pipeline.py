"""Measure what the pipeline costs apart from training and evaluation, in a temporary clone."""

import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.process import PROJECT, environment_of_a_clone


def measure(threads: int, *, steps: int, times: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of `make repro`, of its stages without their computation, of runs with nothing to do.

    The data set is MNIST if MNIST_MIRROR is set, otherwise the digits of scikit-learn. A few
    `steps` are trained. What can be repeated is measured `times` times, and the result is the
    median. Raises CalledProcessError.
    """
    own = environment_of_a_clone(threads)
    if (mirror := own.get("MNIST_MIRROR", "")) and (PROJECT / mirror).is_dir():
        own["MNIST_MIRROR"] = str(PROJECT / mirror)

    def seconds(*command: str, where: Path = PROJECT) -> float:
        start = time.perf_counter()
        subprocess.run(command, cwd=where, env=own, check=True, capture_output=True, text=True)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        seconds("git", "clone", "--quiet", str(PROJECT), str(clone))
        recipe = clone / "recipes" / ("reference.yaml" if mirror else "quick.yaml")
        text = re.sub(r"(?m)^  steps: \d+", f"  steps: {steps}", recipe.read_text())
        (clone / "params.yaml").write_text(text)

        say("the pipeline: everything")
        stages, everything = timed_stages(clone, own)
        with (clone / "results" / "train" / "timing.csv").open() as file:
            *_, last = csv.DictReader(file)
        training = float(last["seconds"])
        evaluation = float(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.reading", str(clone)],
                cwd=PROJECT,
                env=own,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        say("the pipeline: nothing to do")
        nothing = median(seconds("dvc", "repro", where=clone) for _ in range(times))
    environment_check = median(seconds("sh", "scripts/env.sh") for _ in range(times))
    stages["train"] -= training
    stages["evaluate"] -= evaluation
    return {
        "dataset": "mnist" if mirror else "digits",
        "times": times,
        "steps": steps,
        "make_repro": environment_check + everything,
        "training": training,
        "evaluation": evaluation,
        "overhead": environment_check + everything - training - evaluation,
        "stages": stages,
        "environment": environment_check,
        "nothing_to_do": nothing,
    }


def timed_stages(clone: Path, environment: Mapping[str, str]) -> tuple[dict[str, float], float]:
    """Run `dvc repro`; returns the seconds of each stage, and of all.

    A stage's time ends when the next stage starts, so DVC's own work after it is part of it. Raises
    CalledProcessError.
    """
    start, begun, lines = time.perf_counter(), {}, []
    command = ("dvc", "repro")
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        cwd=clone,
        env=unbuffered,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if found := re.match(r"Running stage '(\w+)'", line):
                begun[found[1]] = time.perf_counter()
    end = time.perf_counter()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr="".join(lines))
    ends = [*list(begun.values())[1:], end]
    lasted = {name: until - begun[name] for name, until in zip(begun, ends, strict=True)}
    return lasted, end - start
