"""Train the row LSTM, or continue from its last checkpoint. Run: dvc repro train"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # before the other imports, which take seconds
    from mnist_lstm.pipeline import stage

    stage.begin()

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from tqdm import tqdm

from mnist_lstm import UserError
from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.files import sha256, write_atomically
from mnist_lstm.learning import build, checkpoint, device, group, health, precision
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.build import Learner
from mnist_lstm.learning.checkpoint import Checkpoint, Damaged
from mnist_lstm.learning.fit import Evaluation, fit
from mnist_lstm.learning.group import Group, Parted
from mnist_lstm.learning.health import Diverged
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.learning.optimizer import averaged
from mnist_lstm.pipeline import company, launch, provenance, stage
from mnist_lstm.pipeline.params import Params
from mnist_lstm.pipeline.progress import StepBar
from mnist_lstm.pipeline.result_files import Progress, RunRecord, SplitRecord, Training, row
from mnist_lstm.pipeline.signals import Interrupted
from mnist_lstm.pipeline.timing import Clock, now
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
        launch.leave(f"train: {error}")


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
    tried = _model(params, data["train"], where)
    computes_in = precision.choose(params.train.precision, tried)
    is_wavefront = together is None and precision.is_wavefront(computes_in, tried)
    facts = _facts(params, files, where, computes_in, is_wavefront)
    saved = Checkpoint(stage.root() / ".checkpoints", checkpoint.fingerprint(facts))
    if together and not together.is_first:
        learner = _start(params, data["train"], where, computes_in, is_wavefront)
        _help(params, data, learner, saved, together)
        return
    with saved.held(_say_who_trains), signals.deferred():
        saved.prune()
        learner = _start(params, data["train"], where, computes_in, is_wavefront)
        if together:
            if launch.restarts():
                print(f"a process ended before its time: all {together.processes} start again")
            _bring_newest(saved, together)
        state = _load(saved, learner, params.train.steps)
        if state is None:
            steps, batch, images = params.train.steps, params.train.batch_size, len(data["train"])
            print(f"{steps:,} steps of {batch:,} of {images:,} images, {_computation(facts)}")
            about = _about(params, files, data, facts, saved.fingerprint)
            state = Progress(0, 0.0, Training(about))
            # before the run is in MLflow: a kill then never leaves a run without a checkpoint
            saved.save(*learner.parts, state.as_state())
        record = state.record
        clock = Clock(
            where,
            state.seconds,
            record.timings[-1]["time"] if record.timings else record.about.started,
        )

        run = Follower(stage.root(), record.about, tqdm.write)
        try:
            _learn(params, data, learner, saved, state, clock, run, together)
        except BaseException as error:
            status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
            run.finish(status, record.about, clock.time)
            raise

        with averaged(learner.optimizer):
            learner.model.save(results / "model.safetensors")
            doubt = health.doubt(
                learner.model,
                data["validation"],
                record.rows[-1]["validation_accuracy"],
                params.train.eval_batch_size,
                "validation",
            )
        about = record.about.finished(
            ended=record.timings[-1]["time"], model_sha256=sha256(results / "model.safetensors")
        )
        replace(record, about=about).write(results)
        run.finish("FINISHED", about, about.ended)
        right = 100 * record.rows[-1]["test_accuracy"]
        print(f"{right:.2f} % of the test images are right, {_computation(facts)}")
        if doubt:
            print(doubt)


def _learn(
    params: Params,
    data: Mapping[str, Sequences],
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

    def save(*, wait: bool, diverged: str | None = None) -> None:
        now = Progress(step, clock.seconds, record, diverged).as_state()
        saved.save(*learner.parts, now, partial(show, len(record.rows)), wait=wait)

    show(len(record.rows))
    if together:
        _share(learner, together, step, ended=state.diverged is not None)
    if state.diverged is not None:
        raise Diverged(state.diverged)
    bar = StepBar(step, settings.steps, settings.eval_every, clock.device)
    evaluations = _fit(params, data, learner, step, together, bar.evaluates)
    with bar:
        while step < settings.steps:
            try:
                evaluation = next(evaluations)
            except Diverged as error:
                step += 1
                save(wait=True, diverged=str(error))
                if together and step < settings.steps:  # the others are in the next step
                    together.sum_gradients(learner.model, stop=True)
                raise
            step += 1
            bar.stepped(evaluated=evaluation is not None)
            if evaluation:
                record.rows.append(row(evaluation))
                record.timings.append(row(clock.read(step)))
                bar.set_postfix_str(f"loss {evaluation.train_loss:.3f}", refresh=False)
                tqdm.write(_reference_line(evaluation))
            signal = signals.came()
            if together:  # all stop after the same step
                signal = (signal or SIGTERM) if together.stops else None
            if signal:
                save(wait=True)
                where = f"step {step:,} of {settings.steps:,}"
                raise Interrupted(signal, f"saved at {where}: run it again to continue from there")
            due = evaluation or step % settings.checkpoint_every == 0
            if step == settings.steps or (due and saved.is_due(clock.seconds - before)):
                save(wait=step == settings.steps)


def _fit(
    params: Params,
    data: Mapping[str, Sequences],
    learner: Learner,
    start: int,
    together: Group | None,
    evaluates: Callable[[], object] = lambda: None,
) -> Iterator[Evaluation | None]:
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
        stop=lambda: signals.came() is not None,
    )


def _help(
    params: Params,
    data: Mapping[str, Sequences],
    learner: Learner,
    saved: Checkpoint,
    together: Group,
) -> None:
    """Compute a part of each batch, from the first process's state to the last step."""
    with signals.deferred():
        _bring_newest(saved, together)
        step = _share(learner, together)
        for _ in _fit(params, data, learner, step, together):
            if together.stops:
                return


def _share(learner: Learner, together: Group, step: int = 0, *, ended: bool = False) -> int:
    """Give all processes the state of the first. Returns its step, and the last one if `ended`."""
    about = {"about": torch.tensor([step, ended])}
    tensors = together.share(checkpoint.capture(*learner.parts) | about)
    step, ended = tensors.pop("about").tolist()
    checkpoint.restore(tensors, *learner.parts)
    learner.model.part = together.part
    return sys.maxsize if ended else step


def _bring_newest(saved: Checkpoint, together: Group) -> None:
    """Bring the newest checkpoint of any host to the host of the first process.

    Only the first process saves. After a restart, another host may have it.
    """
    step, source = together.largest(saved.step() if group.leads_host() else 0)
    if step and source:
        content = saved.path.read_bytes() if together.rank == source else b""
        file = torch.frombuffer(bytearray(content or 1), dtype=torch.uint8)
        found = together.share({"file": file}, source)["file"]
        if together.is_first:
            write_atomically(saved.path, found.numpy().tobytes())


def _load(saved: Checkpoint, learner: Learner, steps: int) -> Progress | None:
    """Restore the learner from its last checkpoint; returns its state, None if there is none."""

    def progress(about: Mapping[str, Any]) -> Progress:
        found = Progress.from_state(about, "its record")
        if found.step > steps or (found.step == steps != found.record.step):
            raise UserError(f"its record: step {found.step} is not one of this training")
        return found

    while True:
        try:
            about = saved.load(*learner.parts, progress)
        except Damaged as error:
            aside = saved.set_aside().name
            then = "the checkpoint before it is used"
            if not saved.path.exists():
                then = "the training starts over"
            print(f"{error}; renamed to {aside}; {then}")
            continue
        if about is None:
            return None
        state = progress(about)
        print(f"continues from step {state.step:,} of {steps:,}, its last checkpoint")
        return state


def _say_who_trains(holder: str) -> None:
    print(f"the same training is running in {holder}; waiting until it ends", flush=True)


def _model(params: Params, data: Sequences, where: torch.device) -> RowLSTM:
    return build.model(data, where, **params.model.model_dump())


def _start(
    params: Params, data: Sequences, where: torch.device, computes_in: str, is_wavefront: bool
) -> Learner:
    settings = params.train
    return build.learner(
        params.seed,
        lambda: _model(params, data, where),
        len(data),
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
        "code": checkpoint.code_digest(stage.code("train")),
        "versions": provenance.versions(*packages),
        "device": device.describe(where),
        "precision": computes_in,
        "threads": torch.get_num_threads(),
        **several,
    }


def _about(
    params: Params,
    files: dict[str, Path],
    data: dict[str, Sequences],
    facts: dict[str, Any],
    fingerprint: str,
) -> RunRecord:
    found, train = provenance.observe(Path.cwd()), data["train"]
    origin = provenance.Origin.here(stage.root())
    training_id = uuid.uuid4().hex
    sections = {
        "seed": params.seed,
        "fetch": {"dataset": train.dataset},
        "preprocess": train.preprocess,
        "model": params.model.model_dump(),
        "augment": params.augment.model_dump(),
        "train": params.train.model_dump(),
    }
    return RunRecord(
        training_id=training_id,
        name=found.dvc_experiment or f"{train.dataset}-seed-{params.seed}-{training_id[:6]}",
        started=now(),
        fingerprint=fingerprint,
        dataset=train.dataset,
        image=(train.pixels.shape[1], train.pixels.shape[2]),
        data={
            split: SplitRecord(str(files[split]), len(data[split]), facts["data"][split])
            for split in SPLITS
        },
        device=facts["device"],
        precision=facts["precision"],
        threads=facts["threads"],
        commit=found.commit,
        dirty=bool(found.patch),
        dvc_experiment=found.dvc_experiment,
        dvc_baseline=found.dvc_baseline,
        versions=facts["versions"] | provenance.versions("mlflow", "dvc"),
        params=sections,
        patch=found.patch.decode(errors="surrogateescape"),
        wait_policy=company.wait_policy(),
        user=origin.user,
        host=origin.host,
        folder=origin.folder,
    )


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
