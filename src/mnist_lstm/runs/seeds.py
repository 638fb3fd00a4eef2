"""Train one recipe with several seeds, each as a DVC experiment, and compute their statistics.

The record of a seed is a small file for git: the parameters, metrics, versions and device of its
training. A seed that has a record is not trained again, on any machine.
"""

import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mnist_lstm import UserError, git
from mnist_lstm.files import sha256, write_atomically
from mnist_lstm.pipeline.params import ADDED
from mnist_lstm.pipeline.result_files import read_json, write_json
from mnist_lstm.runs import history, resolve
from mnist_lstm.runs.child import run_dvc

# fields of run.json that a record has too
ABOUT = (
    *("name", "training_id", "started", "ended", "commit", "dirty"),
    *("device", "precision", "threads", "versions", "model_sha256"),
)
# what dvc says where another one is at work; for the first, it waits itself
BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
EXPERIMENT = ("exp", "run", "--temp", "--name")
PAUSE = 5.0  # seconds until it is asked again
CODE = (
    "src",
    "dvc.yaml",
    "data/own",
    "data/published_curve.csv",
)  # the files that a stage depends on


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of n values, and the 95 % confidence interval of the mean.

    The interval is Student's t (n - 1 degrees of freedom). A single value has neither deviation nor
    interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float]) -> Summary:
    """Summarize one or more values."""
    n, middle = len(values), mean(values)
    if n == 1:
        return Summary(n, middle, None, None, None)
    from scipy import stats  # the import takes half a second

    deviation = stdev(values)
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Summary(n, middle, deviation, middle - half, middle + half)


def seed_record(
    root: Path,
    settings: Mapping[str, Any],
    here: Mapping[str, Any],
    name: str,
    folder: Path | None,
    *,
    fresh: bool = False,
    note: Callable[[str], object] = lambda _: None,
) -> Mapping[str, Any]:
    """The record of a seed: from `folder`, from an experiment, or from a new training.

    `settings` has the parameters by dotted key, including the seed; `here` has those of
    params.yaml. The experiment's name begins with `name`. With `fresh`, the training is new
    whatever there is. `note` is called with a line for each file that is damaged. Raises UserError
    if the training fails.
    """
    seed = settings["seed"]
    record = folder / f"seed-{seed}.json" if folder else None
    if record and record.is_file() and not fresh:
        about = read_json(record)
        if _is_of(about, settings):
            return about
    code = code_digest(root)
    digest = hashlib.sha256(json.dumps([settings, code], sort_keys=True).encode()).hexdigest()
    experiment = f"{name}-seed-{seed}-{digest[:6]}"
    if fresh or not _is_there(root, experiment):
        overrides = [
            part
            for key, value in settings.items()
            if here.get(key) != value
            for part in ("--set-param", f"{key}={json.dumps(value)}")
        ]
        overrides += ["--force"] * fresh
        # files that are verified and need no network, where fetch has to run
        same_data = here.get("fetch.dataset") == settings.get("fetch.dataset")
        mirror = {"MNIST_MIRROR": str(root / "data" / "raw")} if same_data else {}
        if failed := _dvc(root, *EXPERIMENT, experiment, *overrides, **mirror):
            raise UserError(
                f"seed {seed}: `dvc exp run` ended with exit code {failed}; fix what it reports "
                "above, then repeat the command: it continues with this seed"
            )
    found = history.History(root, note)
    # an experiment that --fresh made again leaves a run of its name in DVC's cache
    named = [each for each in found.results if experiment in each.experiments]
    result = named[0] if named else resolve.find(found, experiment)
    metrics, curve = found.metrics(result), found.content(result.training, "curve.csv")
    if not metrics or curve is None:
        raise UserError(f"seed {seed}: experiment {experiment} has no evaluation here")
    timings = found.rows(result.training, "timing.csv")
    about = {
        "params": dict(settings),
        "code": code,
        "metrics": metrics,
        "seconds": timings[-1]["seconds"],
        **{key: getattr(result.record, key) for key in ABOUT},
    }
    if record:
        write_atomically(record.with_suffix(".csv"), curve)
        write_json(record, about)
    return about


def _is_of(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a record is of a recipe's parameters.

    Keys that were added later have the value that they had before. A record whose precision was
    `auto` is one of a recipe that names the precision that it was trained in, too.
    """
    recorded = ADDED | _without_promote(record.get("params", {}))
    named = recorded | {"train.precision": record.get("precision")}
    is_auto = recorded.get("train.precision") == "auto"
    wanted = ADDED | _without_promote(settings)
    return recorded == wanted or (is_auto and named == wanted)


def _without_promote(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that stages read: all but the section promote."""
    return {key: value for key, value in settings.items() if not key.startswith("promote.")}


def code_digest(root: Path) -> str:
    """The hex digest of the files that stages depend on, committed or not."""
    every = ("--cached", "--others", "--exclude-standard", "--deduplicate")
    names = git.file_names(root, *every, paths=CODE)
    sums = {name: sha256(root / name) for name in names if (root / name).is_file()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _is_there(root: Path, experiment: str) -> bool:
    """Whether the present commit has an experiment with this name."""
    head = git.head(root) or ""
    return bool(git.git(root, "for-each-ref", f"refs/exps/{head[:2]}/{head[2:]}/{experiment}"))


def _dvc(root: Path, *arguments: str, **environment: str) -> int:
    """Run dvc with all its output on stderr, since stdout is for our own. Returns its exit code.

    If another dvc is at work here, this waits for its end.
    `environment` has variables that are set unless they are already.
    """

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    while True:
        code, lines = run_dvc(
            *("--wait-for-lock", *arguments),
            folder=root,
            environment=environment | os.environ,
            report=report,
        )
        if not code or not any(map(BUSY.search, lines)):
            return code
        report("another dvc is at work here; waiting for its end")
        time.sleep(PAUSE)
