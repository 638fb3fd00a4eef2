"""Train one recipe with several seeds, each as a DVC experiment, and compute their statistics.

The record of a seed is a small file for git: the parameters, metrics, versions and device of its
training. A seed that has a record is not trained again, on any machine.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.pipeline import company
from mnist_lstm.pipeline.params import ADDED
from mnist_lstm.pipeline.result_files import write_json
from mnist_lstm.runs import experiment
from mnist_lstm.runs.history import History
from mnist_lstm.runs.recipes import images_of, parse_record

# fields of run.json that a record has too
ABOUT = (
    *("name", "training_id", "started", "ended", "commit", "dirty"),
    *("device", "precision", "threads", "versions", "model_sha256"),
)


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of n values, and the 95 % confidence interval of the mean.

    The interval is Student's t (n - 1 degrees of freedom), without what no such value can be: less
    than 0, or an accuracy above 1. A single value has neither deviation nor interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summary(values: Sequence[float], metric: str) -> Summary:
    """Summarize one or more values of a metric: of an accuracy, as a fraction, or of a loss."""
    n, middle = len(values), mean(values)
    if n == 1:
        return Summary(n, middle, None, None, None)
    from scipy import stats  # the import takes half a second

    deviation = stdev(values)
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    highest = 1.0 if metric.endswith("accuracy") else math.inf
    return Summary(n, middle, deviation, max(0.0, middle - half), min(highest, middle + half))


def train_at_once(
    record_of: Callable[[int, experiment.Train], Mapping[str, Any]],
    seeds: Sequence[int],
    workers: int,
    ended: Callable[[Mapping[str, Any]], object],
) -> list[Mapping[str, Any]]:
    """The records of the seeds, of which `workers` are trained at once.

    `record_of` returns the record of a seed: `seed_record`, with the function for its `train`.
    `ended` is called with each record when its seed has ended. If one fails, or the command is
    stopped, the others save a checkpoint and end, too; then the error is raised.
    """
    starts, stop = threading.Lock(), threading.Event()
    # their threads meet each other on the cores, which none of them sees when it starts
    sleeping = {} if company.wait_policy() else {"OMP_WAIT_POLICY": "PASSIVE"}

    def train(*arguments: Any, **settings: Any) -> tuple[int, list[str]]:
        with experiment.Turn(starts) as turn:
            if stop.is_set():
                raise experiment.Stopped
            code, lines = experiment.train(
                *arguments,
                **settings,
                report=turn.hears,
                is_enough=stop.is_set,
                variables=sleeping,
            )
        if stop.is_set():
            raise experiment.Stopped
        for line in lines if code else ():
            experiment.to_stderr(line)
        return code, lines

    with ThreadPoolExecutor(workers) as pool:
        found: list[Future[Mapping[str, Any]]] = []
        try:
            found.extend(pool.submit(record_of, seed, train) for seed in seeds)
            for each in as_completed(found):
                ended(each.result())
        except BaseException:
            stop.set()
            for each in found:
                each.cancel()
            raise
    return [each.result() for each in found]


def seed_record(
    root: Path,
    settings: Mapping[str, Any],
    here: Mapping[str, Any],
    code: str,
    name: str,
    folder: Path | None,
    *,
    fresh: bool = False,
    note: Callable[[str], object] = lambda _: None,
    train: experiment.Train = experiment.train,
) -> Mapping[str, Any]:
    """The record of a seed: from `folder`, from an experiment, or from a new training.

    `settings` has the parameters by dotted key, including the seed; `here` has those of
    params.yaml; `code` is the digest of the code. The experiment's name begins with `name`. With
    `fresh`, the training is new whatever there is. `note` is called with a line for each file that
    is damaged. `train` is experiment.train, or what takes its arguments. Raises UserError if the
    training fails, if the code is another one by now, if the record in `folder` is damaged, or if
    the experiment's files are.
    """
    seed = settings["seed"]
    record = folder / f"seed-{seed}.json" if folder else None
    if record and record.is_file() and not fresh:
        about = parse_record(record.read_bytes(), str(record))
        if _is_of(about, settings):
            return about
    name = experiment.name_of(f"{name}-seed-{seed}", settings, code)
    for attempt in range(experiment.TRIES):
        is_to_be_trained = fresh and attempt == 0
        if not is_to_be_trained and experiment.is_there(root, name):
            break
        failed, _ = train(root, name, settings, here, code, force=fresh)
        if failed:
            raise UserError(
                f"seed {seed}: `dvc exp run` ended with exit code {failed}; fix what it reports "
                "above, then repeat the command: it continues with this seed"
            )
    found = History(root, note)
    result = experiment.result_of(found, name, settings)
    metrics, curve = found.metrics(result), found.content(result.training, "curve.csv")
    if not metrics or curve is None:
        raise UserError(f"seed {seed}: experiment {name} has no evaluation here")
    timings = found.rows(result.training, "timing.csv")
    if not timings:
        raise experiment.not_whole(name)
    about = {
        "params": dict(settings),
        "code": code,
        "metrics": metrics,
        "seconds": timings[-1]["seconds"],
        "images": images_of(result.record),
        **{key: getattr(result.record, key) for key in ABOUT},
    }
    if record:
        write_atomically(record.with_suffix(".csv"), curve)
        write_json(record, about)
    return about


def _is_of(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a record is of a recipe's parameters.

    Keys that were added later have the value that they had before. A record is of a recipe that
    names the precision of its training, and of one with `auto`.
    """
    recorded = ADDED | _without_promote(record["params"])
    wanted = ADDED | _without_promote(settings)
    precisions = ("auto", record["precision"])
    return wanted in (recorded, *(recorded | {"train.precision": each} for each in precisions))


def _without_promote(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that stages read: all but the section promote."""
    return {key: value for key, value in settings.items() if not key.startswith("promote.")}
