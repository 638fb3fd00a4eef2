"""One recipe with several seeds: a DVC experiment and a record each, and their statistics.

A record is a small file for git with the parameters, the metrics and the circumstances of a seed's
training. A seed that has a record is not trained again, on any machine.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mnist_lstm import UserError, git
from mnist_lstm.files import sha256
from mnist_lstm.pipeline.result_files import read_json, write_json
from mnist_lstm.runs import history, resolve

# fields of run.json that a record has too
ABOUT = (
    *("name", "training_id", "started", "ended", "commit", "dirty"),
    *("device", "precision", "threads", "versions", "model_sha256"),
)
CODE = (
    "src",
    "dvc.yaml",
    "data/own",
    "data/published_curve.csv",
)  # the files that a stage depends on


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of n figures, and the 95 % confidence interval of the mean.

    The interval is Student's t (n - 1 degrees of freedom). One figure has neither.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Summarize one figure or more."""
    n, middle = len(values), mean(values)
    if n == 1:
        return Summary(n, middle, None, None, None)
    from scipy import stats  # half a second's import

    deviation = stdev(values)
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Summary(n, middle, deviation, middle - half, middle + half)


def seed_record(
    root: Path,
    settings: Mapping[str, Any],
    here: Mapping[str, Any],
    name: str,
    folder: Path | None,
) -> Mapping[str, Any]:
    """The record of a seed: from `folder`, from an experiment, or from a new training.

    `settings` are the parameters by dotted key, with the seed; `here` are those of params.yaml. The
    experiments are named after `name`. Raises UserError where the training does not finish.
    """
    seed = settings["seed"]
    record = folder / f"seed-{seed}.json" if folder else None
    if record and record.is_file():
        about = read_json(record)
        if _without_promote(about.get("params", {})) == _without_promote(settings):
            return about
    experiment = f"{name}-seed-{seed}-{_digest(root, settings)}"
    if not _is_there(root, experiment):
        overrides = [
            part
            for key, value in settings.items()
            if here.get(key) != value
            for part in ("--set-param", f"{key}={json.dumps(value)}")
        ]
        if code := _dvc(root, "exp", "run", "--temp", "--name", experiment, *overrides):
            raise UserError(
                f"seed {seed}: `dvc exp run` ended with exit code {code}; once what it says above "
                "is mended, the same command goes on from there"
            )
    found = history.History(root)
    result = resolve.find(found, experiment)
    metrics = found.metrics(result)
    if not metrics:
        raise UserError(f"seed {seed}: experiment {experiment} has no evaluation here")
    timings = found.rows(result.training, "timing.csv")
    about = {
        "params": dict(settings),
        "metrics": metrics,
        "seconds": timings[-1]["seconds"],
        **{key: getattr(result.record, key) for key in ABOUT},
    }
    if record:
        curve = found.lay_out(
            {p: md5 for p, md5 in result.training.items() if p.endswith("curve.csv")}, record.parent
        )
        (curve / "curve.csv").rename(record.with_suffix(".csv"))
        write_json(record, about)
    return about


def _without_promote(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that stages read: all but the section promote."""
    return {key: value for key, value in settings.items() if not key.startswith("promote.")}


def _digest(root: Path, settings: Mapping[str, Any]) -> str:
    """Six hex digits that depend on the parameters and on the code, committed or not."""
    every = ("--cached", "--others", "--exclude-standard", "--deduplicate")
    names = git.file_names(root, *every, paths=CODE)
    sums = {name: sha256(root / name) for name in names if (root / name).is_file()}
    text = json.dumps([settings, sums], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _is_there(root: Path, experiment: str) -> bool:
    """Whether the present commit has an experiment of that name."""
    head = git.head(root) or ""
    return bool(git.git(root, "for-each-ref", f"refs/exps/{head[:2]}/{head[2:]}/{experiment}"))


def _dvc(root: Path, *arguments: str) -> int:
    """Run dvc with its output on stderr, apart from our own; returns its exit code."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=os.environ | {"PATH": programs},
        stdout=2,  # standard error
    )
    try:
        return process.wait()
    except KeyboardInterrupt:  # dvc gets it too, and takes its time to end
        process.wait()
        raise
