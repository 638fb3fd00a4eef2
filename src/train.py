"""Train the row LSTM, or continue from its last checkpoint. Run: dvc repro train"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # before the other imports, which take seconds
    from mnist_lstm.pipeline import stage

    stage.begin()

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

from mnist_lstm import UserError
from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.files import sha256, write_atomically
from mnist_lstm.learning import build, device, group, health, precision
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.build import Learner
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.fingerprint import code_digest, fingerprint
from mnist_lstm.learning.fit import Evaluation, fit
from mnist_lstm.learning.group import Group, Parted
from mnist_lstm.learning.health import Diverged
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.learning.optimizer import averaged
from mnist_lstm.learning.training_state import State
from mnist_lstm.pipeline import launch, provenance, run_record, stage
from mnist_lstm.pipeline.params import Params
from mnist_lstm.pipeline.progress import StepBar
from mnist_lstm.pipeline.result_files import BEST, Progress, Training, row
from mnist_lstm.pipeline.signals import Interrupted
from mnist_lstm.pipeline.timing import Clock
from mnist_lstm.tracking.follower import Follower

# parameters that do not determine the weights, or that _facts has in another form
NO_FACTS = {"device", "checkpoint_every", "precision", "processes"}


def train(params: Params, sequences: Path, results: Path) -> None:
    """Read `sequences`, train, and write the weights and the measurements into `results`."""
    if launch.is_needed(params.train.processes):
        launch.run(params.train.processes)
        return
    if group.size() != params.train.processes:
        raise UserError(
            f"params.yaml: train.processes must be {group.size()}, the number of processes that "
            f"torchrun started, is {params.train.processes}"
        )
    where = device.choose(group.device_of(params.train.device))
    try:
        with group.joined(where) as together:
            _train(params, sequences, results, where, together)
    except Parted as error:
        launch.leave("train", str(error))


def _train(
    params: Params, sequences: Path, results: Path, where: torch.device, together: Group | None
) -> None:
    """Train, alone or `together` with others. The first of several writes and prints all."""
    files = {split: sequences / f"{split}.safetensors" for split in SPLITS}
    data = {split: Sequences.load(file).to(where) for split, file in files.items()}
    if params.train.batch_size > len(data["train"]):
        raise UserError(
            f"params.yaml: train.batch_size must be at most the {len(data['train'])} images there "
            f"are to train on, is {params.train.batch_size}"
        )
    make = partial(build.model, data["train"], where, **params.model.model_dump())
    tried = make()
    computes_in = precision.choose(params.train.precision, tried)
    is_wavefront = together is None and precision.is_wavefront(
        computes_in, tried, (params.train.batch_size, *data["train"].pixels.shape[1:])
    )
    facts = _facts(params, files, where, computes_in, is_wavefront)
    saved = Checkpoint(stage.root() / ".checkpoints", fingerprint(facts))
    learner = make_learner(params, make, len(data["train"]), computes_in, is_wavefront)
    fit_from = partial(start_fit, params, data, learner, together)
    if together and not together.is_first:
        with signals.deferred():
            together.help(saved, learner, fit_from)
        return
    with saved.held(_say_who_trains), signals.deferred():
        saved.prune()
        if together:
            if launch.restarts():
                print(f"a process ended before its time: all {together.processes} start again")
            together.bring_newest(saved)
        state = _load(saved, learner, params.train.steps, params.train.keep_best)
        if state is None:
            steps, batch, images = params.train.steps, params.train.batch_size, len(data["train"])
            print(f"{steps:,} steps of {batch:,} of {images:,} images, {_computation(facts)}")
            about = run_record.begin(params, files, data, facts, saved.fingerprint, stage.root())
            state = Progress(0, 0.0, Training(about))
            # before the run is in MLflow: a kill then never leaves a run without a checkpoint
            saved.save(*learner.parts, state.as_state())
        about, timings = state.record.about, state.record.timings
        clock = Clock(where, state.seconds, timings[-1]["time"] if timings else about.started)

        run = Follower(stage.root(), about, tqdm.write)
        try:
            _learn(params, fit_from, learner, saved, state, clock, run, together)
            doubt = _write(params, data["validation"], learner, state.record, results, run)
        except BaseException as error:
            status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
            run.finish(status, about, clock.time)
            raise
        right = 100 * state.record.rows[-1]["test_accuracy"]
        print(f"{right:.2f} % of the test images are right, {_computation(facts)}")
        if doubt:
            print(doubt)


def _learn(
    params: Params,
    fit_from: Callable[..., Iterator[Evaluation | None]],
    learner: Learner,
    saved: Checkpoint,
    state: Progress,
    clock: Clock,
    run: Follower,
    together: Group | None,
) -> None:
    """Train from a checkpoint's state to the last step.

    If a signal comes, save everything and raise Interrupted. If the loss is not finite, save that
    and raise Diverged: the same training would end there again, so it is not repeated.

    MLflow gets only rows that a checkpoint holds, so that a training that continues from the
    checkpoint does not measure any of them a second time.
    """
    settings, before, shown = params.train, clock.seconds, 0
    step, record = state.step, state.record

    def show(rows: int) -> None:
        nonlocal shown
        run.log_rows(record.rows[shown:rows], record.timings[shown:rows])
        shown = rows

    def save_all(*, wait: bool, diverged: str | None = None) -> None:
        now = Progress(step, clock.seconds, record, diverged).as_state()
        then = partial(show, len(record.rows))
        saved.save(*learner.parts, now, then, wait=wait, best=learner.best)

    show(len(record.rows))
    if together:
        together.share_state(learner, step, ended=state.diverged is not None)
    if state.diverged is not None:
        raise Diverged(state.diverged)
    bar = StepBar(step, settings.steps, settings.eval_every, clock.device)
    evaluations = fit_from(step, bar.evaluates)
    with bar:
        while step < settings.steps:
            try:
                evaluation = next(evaluations)
            except Diverged as error:
                step += 1
                save_all(wait=True, diverged=str(error))
                if together and step < settings.steps:  # the others are in the next step
                    together.sum_gradients(learner.model, stop=1)
                raise
            step += 1
            bar.stepped(evaluated=evaluation is not None)
            if evaluation:
                record.rows.append(row(evaluation))
                record.timings.append(row(clock.read(step)))
                if settings.keep_best and record.best_step == step:
                    learner.keep()
                bar.set_postfix_str(f"loss {evaluation.train_loss:.3f}", refresh=False)
                tqdm.write(_reference_line(evaluation))
            signal = signals.came()
            if together:  # all stop after the same step
                signal = together.stops
            if signal:
                save_all(wait=True)
                where = f"step {step:,} of {settings.steps:,}"
                raise Interrupted(signal, f"saved at {where}: run it again to continue from there")
            due = evaluation or step % settings.checkpoint_every == 0
            if step == settings.steps or (due and saved.is_due(clock.seconds - before)):
                save_all(wait=step == settings.steps)


def start_fit(
    params: Params,
    data: Mapping[str, Sequences],
    learner: Learner,
    together: Group | None,
    start: int,
    evaluates: Callable[[], object] = lambda: None,
) -> Iterator[Evaluation | None]:
    """`learning/fit.fit` after step `start`, with the values that the parameters have for it."""
    settings = params.train
    return fit(
        *learner.parts,
        *(data[split] for split in SPLITS),
        start=start,
        steps=settings.steps,
        eval_every=settings.eval_every,
        eval_batch_size=settings.eval_batch_size,
        recorded=together is None and data["train"].labels.device.type == "cuda",
        augment=Augmentation(**params.augment.model_dump()),
        rate_at=learner.rate_at,
        clip_norm=settings.clip_norm,
        evaluates=evaluates,
        group=together,
        stop=lambda: signals.came() or 0,
    )


def _write(
    params: Params,
    validation: Sequences,
    learner: Learner,
    record: Training,
    results: Path,
    run: Follower,
) -> str | None:
    """Write all results, and close the MLflow run. Returns a doubt about the model, if any."""
    with averaged(learner.optimizer):
        learner.model.save(results / "model.safetensors")
        doubt = health.doubt(
            learner.model,
            validation,
            record.rows[-1]["validation_accuracy"],
            params.train.eval_batch_size,
            "validation",
        )
    about = record.about.finished(
        ended=record.timings[-1]["time"],
        model_sha256=sha256(results / "model.safetensors"),
        best_sha256=_write_best(learner, results / BEST),
    )
    replace(record, about=about).write(results)
    run.finish("FINISHED", about, about.ended)
    return doubt


def _write_best(learner: Learner, path: Path) -> str | None:
    """Write the best model and return its SHA-256.

    If the learner keeps none, write a file that says so and return None. Otherwise its model has
    the best weights afterwards.
    """
    if not learner.best:
        # DVC wants each output of a stage, and warns of an empty one
        write_atomically(path, save({}, {"note": "train.keep_best is false: there is no model"}))
        return None
    learner.model.load_state_dict(learner.best)
    learner.model.save(path)
    return sha256(path)


def _load(saved: Checkpoint, learner: Learner, steps: int, keep_best: bool) -> Progress | None:
    """Restore the learner from its last checkpoint; returns its state, None if there is none."""

    def check(state: State) -> None:
        found = Progress.from_state(state.about, "its record")
        ended = found.step == steps and found.diverged is None
        if found.step > steps or (ended and found.record.step != steps):
            raise UserError(f"its record: step {found.step} is not one of this training")
        if bool(state.best) != (keep_best and bool(found.record.rows)):
            raise UserError("its record: the best model is not one of this training")

    about = saved.load_undamaged(*learner.parts, check, print, best=learner.best)
    if about is None:
        return None
    state = Progress.from_state(about, "its record")
    print(f"continues from step {state.step:,} of {steps:,}, its last checkpoint")
    return state


def _say_who_trains(holder: str) -> None:
    print(f"the same training is running in {holder}; waiting until it ends", flush=True)


def make_learner(
    params: Params, make: Callable[[], RowLSTM], images: int, computes_in: str, is_wavefront: bool
) -> Learner:
    """`learning/build.learner`, with the values that the parameters have for it."""
    settings = params.train
    return build.learner(
        params.seed,
        make,
        images,
        precision=computes_in,
        wavefront=is_wavefront,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        schedule=settings.schedule,
        averaging=settings.averaging,
        weight_decay=settings.weight_decay,
        optimizer=settings.optimizer,
    )


def _facts(
    params: Params,
    files: dict[str, Path],
    where: torch.device,
    computes_in: str,
    is_wavefront: bool,
) -> dict[str, Any]:
    several = {} if params.train.processes == 1 else {"processes": params.train.processes}
    packages = ["torch", "numpy", "safetensors", *(["triton"] if is_wavefront else [])]
    return {
        "seed": params.seed,
        "model": params.model.model_dump(),
        "augment": params.augment.model_dump(),
        "train": params.train.model_dump(exclude=NO_FACTS),
        "data": {split: sha256(file) for split, file in files.items()},
        "code": code_digest(stage.code("train")),
        "versions": provenance.versions(*packages),
        "device": device.describe(where),
        "precision": computes_in,
        "threads": torch.get_num_threads(),
        **several,
    }


def _computation(facts: Mapping[str, Any]) -> str:
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    exact = facts["precision"] == "float32" and facts["device"].startswith("cpu")
    expect = "the README's figures are float32's on a CPU: these may differ a little"
    where = device.in_words(facts["device"])
    return f"in {facts['precision']} on {where}, {threads}" + ("" if exact else f"\n{expect}")


def _reference_line(measured: Evaluation) -> str:
    return (
        f"Iter{measured.epoch}, step {measured.step}, "
        f"train-test {measured.train_accuracy:g}-{measured.test_accuracy:g}"
    )


if __name__ == "__main__":
    stage.run(train)
