"""Measure what a trial of a search costs beyond `dvc exp run --temp` with the same parameters.

The seconds need a quiet machine. Processor seconds also tell something on a busy one.

Run: python -m benchmarks.trial [TIMES]
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.process import PROJECT, environment_of_a_clone
from mnist_lstm.pipeline import params
from mnist_lstm.runs import experiment, space
from mnist_lstm.runs.search import Plan, Search

STEPS = 20  # of a training: the rest of a trial is what is measured
SHORT = {"train.steps": STEPS, "train.eval_every": 10}


class Cost(NamedTuple):
    """Seconds on the clock, and processor seconds of this process and of those it waited for."""

    clock: float
    processor: float

    @staticmethod
    def so_far() -> "Cost":
        return Cost(time.perf_counter(), sum(os.times()[:4]))

    def since(self, before: "Cost") -> "Cost":
        return Cost(self.clock - before.clock, self.processor - before.processor)


def measure(times: int) -> Iterator[tuple[Cost, Cost]]:
    """The cost of each trial, and of `dvc exp run --temp` with its parameters, one after the other.

    Each of them in its own clone with the data set digits, because DVC would take the results of
    one from its cache for the other. Raises CalledProcessError.
    """
    own = environment_of_a_clone(1)

    def run(*command: str, where: Path) -> None:
        subprocess.run(command, cwd=where, env=own, check=True, capture_output=True, text=True)

    os.environ.clear()
    os.environ |= own  # the search starts dvc with it
    with tempfile.TemporaryDirectory() as folder:
        searched, plain = Path(folder, "searched"), Path(folder, "plain")
        run("git", "clone", "--quiet", str(PROJECT), str(searched), where=PROJECT)
        recipe = searched / "recipes" / "quick.yaml"
        shutil.copy(recipe, searched / "params.yaml")
        run("dvc", "repro", "preprocess", where=searched)
        author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
        run("git", *author, "commit", "--quiet", "--all", "--message", "quick", where=searched)
        shutil.copytree(searched, plain, symlinks=True)
        here = params.flatten(params.load(recipe).model_dump())
        settings = params.flatten(params.load(recipe, SHORT).model_dump())
        tried = space.read(searched / "recipes" / "search.yaml", recipe, SHORT)
        plan = Plan("search", settings, tried, "loss", "none", 0)
        trials = Search(searched, here, plan, searched / "searches").trials(times)
        for _ in range(times):
            start = Cost.so_far()
            trial = next(trials)
            between = Cost.so_far()
            overrides = [
                part
                for key, value in (settings | trial.values).items()
                if here[key] != value
                for part in ("--set-param", f"{key}={json.dumps(value)}")
            ]
            run("dvc", *experiment.EXPERIMENT, trial.experiment, *overrides, where=plain)
            yield between.since(start), Cost.so_far().since(between)


if __name__ == "__main__":
    more = []
    for searched, alone in measure(int(sys.argv[1]) if sys.argv[1:] else 5):
        more.append(searched.since(alone))
        for name, a, b, c in zip(Cost._fields, searched, alone, more[-1], strict=True):
            print(f"{name}: a trial {a:.2f} s, dvc alone {b:.2f} s: {c:+.2f} s", flush=True)
    for name, each in zip(Cost._fields, zip(*more, strict=True), strict=True):
        print(f"{name}: median of {len(more)}: {median(each):+.2f} s")
