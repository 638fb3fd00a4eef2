"""One recipe with several seeds: a DVC experiment and a record each, and what they have in common.

A record says what a seed's training was and came to, in a file that git can keep: with it, the seed
is not trained again, on any machine.
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

# parts of a run.json that a record has too
ABOUT = (
    *("name", "training_id", "started", "ended", "commit", "dirty"),
    *("device", "precision", "threads", "versions", "model_sha256"),
)
CODE = ("src", "dvc.yaml", "data/own", "data/published_curve.csv")  # what a stage is made from


@dataclass(frozen=True)
class Summary:
    """Of n figures: their mean, standard deviation, and the mean's 95 % confidence interval.

    The interval is Student's t (n - 1 degrees of freedom). With one figure there is neither.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """The summary of at least one figure."""
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
    """The record of a training, which is made where neither `folder` nor an experiment has it.

    `settings` are its parameters by dotted key, the seed among them, `here` those of params.yaml,
    `name` what the experiments of the recipe are called by. Raises UserError where the training
    does not come to its end.
    """
    seed = settings["seed"]
    record = folder / f"seed-{seed}.json" if folder else None
    if record and record.is_file():
        about = read_json(record)
        if _that_stages_read(about.get("params", {})) == _that_stages_read(settings):
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


def _that_stages_read(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith("promote.")}


def _digest(root: Path, settings: Mapping[str, Any]) -> str:
    """Six hex digits that are others for other parameters and for other code, committed or not."""
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
    """Run dvc, what it prints being no part of our own answer; its exit code."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=os.environ | {"PATH": programs},
        stdout=2,  # standard error
    )
    try:
        return process.wait()
    except KeyboardInterrupt:  # which dvc got as well, and ends at its own pace
        process.wait()
        raise
