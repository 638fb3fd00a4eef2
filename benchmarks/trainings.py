"""Train variations of a recipe, several seeds each, and write one row for each training.

Trains in this process, or in several of its own, as src/train.py does: the same recipe gives the
same weights with as many threads. Needs neither DVC nor MLflow, but the files that `dvc repro
preprocess` makes.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import MappingProxyType

import torch
from tqdm import tqdm

import train as stage
from benchmarks.studies import PROJECT, Study
from mnist_lstm import UserError
from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.files import sha256
from mnist_lstm.learning import build, device, evaluation, precision
from mnist_lstm.learning.build import Learner
from mnist_lstm.learning.fit import Evaluation
from mnist_lstm.learning.model import infer
from mnist_lstm.learning.optimizer import averaged
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.params import Params, format_value


@dataclass(frozen=True)
class Training:
    """One training of a study."""

    choice: str
    params: Params
    sequences: Path


def main(study: Study) -> None:
    """Train what the command line names and has no row yet, and print the table of all rows.

    Exits with one line on a mistake.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help="choices to train; default: all")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at once; they share the threads"
    )
    options, machine = with_machine(parser)
    try:
        run(study, options.names, jobs=options.jobs, machine=machine)
        print(study.table())
    except UserError as error:
        sys.exit(str(error))


def with_machine(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, object]]:
    """Parse the command line, with a device and a precision too; also these two as changes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="auto", help="auto, bfloat16 or float32")
    options = parser.parse_args()
    return options, {"train.device": options.device, "train.precision": options.precision}


def run(
    study: Study,
    names: Sequence[str] = (),
    *,
    jobs: int = 1,
    machine: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Train the choices of these names, or all, as far as they have no row; write their rows.

    Trains `jobs` at once, each in a process of its own if there are several, with its share of the
    threads. `machine` are changes that depend on the machine. A training that fails does not stop
    the others. Raises UserError for it at the end, for an unknown name, and for data
    that the recipe's stages do not make.
    """
    if unknown := sorted(set(names) - study.choices.keys()):
        raise UserError(f"{', '.join(unknown)}: not among {', '.join(study.choices)}")
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, is {jobs}")
    rows, failed = study.read(), []
    done = {(row["choice"], row["seed"]) for row in rows}
    missing = [
        Training(name, params_of(study, name, seed, machine), study.sequences)
        for name in (names or study.choices)
        for seed in range(study.seeds)
        if (name, str(seed)) not in done
    ]
    for training in missing:
        data_of(training.params, training.sequences, torch.device("cpu"))
    for training, result in _trained(missing, jobs):
        called = f"{training.choice}, seed {training.params.seed}"
        try:
            row = result.result()
        except Exception as error:
            failed.append(f"{called}: {error or type(error).__name__}")
            tqdm.write(failed[-1], file=sys.stderr)
        else:
            rows.append(row)
            study.write(rows)
            tqdm.write(f"{called}: test accuracy {row['test_accuracy']}, {row['seconds']} s")
    if failed:
        raise UserError(f"{len(failed)} of {len(missing)} trainings failed; first, {failed[0]}")


def params_of(
    study: Study, name: str, seed: int, machine: Mapping[str, object] = MappingProxyType({})
) -> Params:
    """The recipe with the changes of a choice and of a machine. It evaluates at the end only."""
    changes = {**study.common, **study.choices[name], "seed": seed, **machine}
    recipe = PROJECT / study.recipe
    steps = params.load(recipe, changes).train.steps
    return params.load(recipe, {**changes, "train.eval_every": steps})


def _trained(
    trainings: Sequence[Training], jobs: int
) -> Iterator[tuple[Training, "Future[dict[str, str]]"]]:
    """Yields each training with its row, or what went wrong, as soon as it ends."""
    if jobs == 1:
        for training in trainings:
            result: Future[dict[str, str]] = Future()
            try:
                result.set_result(train(training))
            except Exception as error:
                result.set_exception(error)
            yield training, result
        return
    threads = max(1, torch.get_num_threads() // jobs)
    # CUDA cannot be used in a forked process
    with ProcessPoolExecutor(
        jobs, get_context("spawn"), initializer=_begin, initargs=(threads,)
    ) as pool:
        its = {pool.submit(train, each, shows=False): each for each in trainings}
        try:
            for result in as_completed(its):
                yield its[result], result
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """Prepare a process that trains beside others, and ends when its parent has ended."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


def train(training: Training, *, shows: bool = True) -> dict[str, str]:
    """Train to the end and measure the model: its row. `shows` a bar of the steps in a terminal."""
    chosen = training.params
    where = device.choose(chosen.train.device)
    data = data_of(chosen, training.sequences, where)
    start = time.perf_counter()
    learner, steps = begin(chosen, data)
    name = f"{training.choice}, seed {chosen.seed}"
    hides = None if shows else True  # None: hides the bar where there is no terminal
    for _ in tqdm(steps, name, chosen.train.steps, leave=False, disable=hides):
        pass
    with averaged(learner.optimizer):
        metrics = {split: _measured(learner, chosen, data[split]) for split in SPLITS[1:]}
    measured = {
        f"{split}_{metric}": str(value)
        for split, found in metrics.items()
        for metric, value in found.items()
    }
    return {
        "choice": training.choice,
        "seed": str(chosen.seed),
        **measured,
        "model_sha256": model_sha256(learner),
        "seconds": f"{time.perf_counter() - start:.3f}",
        "device": device.describe(where),
        "precision": learner.model.precision,
    }


def model_sha256(learner: Learner) -> str:
    """The SHA-256 of the file that train writes of a learner's model."""
    with averaged(learner.optimizer), tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        learner.model.save(model)
        return sha256(model)


def _measured(learner: Learner, chosen: Params, data: Sequences) -> dict[str, float]:
    logits = infer(learner.model, data.pixels, chosen.train.eval_batch_size)
    return evaluation.overall(logits.float().cpu(), data.labels.cpu())


def begin(
    chosen: Params,
    data: Mapping[str, Sequences],
    evaluates: Callable[[], object] = lambda: None,
) -> tuple[Learner, Iterator[Evaluation | None]]:
    """A learner, and the steps that train it, as src/train.py makes them from the parameters.

    `evaluates` is called before each evaluation. Raises UserError if the precision does not work on
    the device of the data.
    """
    images = data["train"]
    make = partial(build.model, images, images.labels.device, **chosen.model.model_dump())
    tried = make()
    computes_in = precision.choose(chosen.train.precision, tried)
    batch = (chosen.train.batch_size, *images.pixels.shape[1:])
    wavefront = precision.is_wavefront(computes_in, tried, batch)
    learner = stage.make_learner(chosen, make, len(images), computes_in, wavefront)
    return learner, stage.start_fit(chosen, data, learner, None, 0, evaluates)


def data_of(chosen: Params, sequences: Path, where: torch.device) -> dict[str, Sequences]:
    """The splits, on a device, with the first `preprocess.train_size` training images.

    These are the images that the preprocess stage takes if split_seed is null. Raises UserError if
    the files are missing or were made with other parameters.
    """
    data = dict(_loaded(sequences, where))
    images, wanted = data["train"], chosen.preprocess.model_dump()
    size = wanted.pop("train_size")
    if (images.dataset, images.preprocess) != (chosen.fetch.dataset, wanted):
        raise UserError(
            f"{sequences}: must have {chosen.fetch.dataset} with a validation_size of "
            f"{wanted['validation_size']}, all other images to train on, and a split_seed of "
            f"{format_value(wanted['split_seed'])}; `dvc repro preprocess` makes it"
        )
    data["train"] = replace(images, pixels=images.pixels[:size], labels=images.labels[:size])
    return data


@cache  # for the next training of this process
def _loaded(sequences: Path, where: torch.device) -> Mapping[str, Sequences]:
    return {split: Sequences.load(sequences / f"{split}.safetensors").to(where) for split in SPLITS}
