"""Train the row LSTM, on from its last checkpoint where there is one. Run: dvc repro train"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # first, since the other imports take seconds

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from mnist_lstm import UserError
from mnist_lstm.data.sequences import SPLITS, Batches, Sequences
from mnist_lstm.files import sha256
from mnist_lstm.learning import checkpoint, device, precision
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.checkpoint import Checkpoint, Damaged
from mnist_lstm.learning.fit import Evaluation, fit
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.learning.optimizer import AveragingAdam, averaged, one_cycle
from mnist_lstm.pipeline import provenance, stage
from mnist_lstm.pipeline.params import Params, TrainParams
from mnist_lstm.pipeline.result_files import Training, row
from mnist_lstm.pipeline.signals import Interrupted
from mnist_lstm.pipeline.timing import Clock, now
from mnist_lstm.tracking.follower import Follower


def train(params: Params, sequences: Path, results: Path) -> None:
    """Read `sequences`, train, and write the weights and what was measured into `results`."""
    where = device.choose(params.train.device)
    files = {split: sequences / f"{split}.safetensors" for split in SPLITS}
    data = {split: Sequences.load(file).to(where) for split, file in files.items()}
    if params.train.batch_size > len(data["train"]):
        raise UserError(
            f"params.yaml: train.batch_size must be at most the {len(data['train'])} images there "
            f"are to train on, is {params.train.batch_size}"
        )
    computes_in = precision.choose(params.train.precision, _model(params, data["train"], where))
    facts = _facts(params, files, where, computes_in)
    saved = Checkpoint(stage.root() / ".checkpoints", checkpoint.fingerprint(facts))
    with saved.held(_say_who_trains), signals.deferred():
        saved.prune()
        learner = _start(params, data["train"], where, computes_in)
        state = _load(saved, learner, params.train.steps)
        if state is None:
            print(
                f"{params.train.steps:,} steps of {params.train.batch_size:,} images out of "
                f"{len(data['train']):,}, on {facts['device']} with {facts['threads']} threads "
                f"in {facts['precision']}"
            )
            about = _about(params, files, data, facts, saved.fingerprint)
            state = {"step": 0, "seconds": 0.0, "record": vars(Training(about))}
            # before the store knows it, so that a kill cannot leave a run that nothing goes on with
            saved.save(*learner, state)
        record, clock = Training(**state["record"]), Clock(where, state["seconds"])

        run = Follower(stage.root(), record.about, tqdm.write)
        try:
            _learn(params, data, learner, saved, state["step"], record, clock, run)
        except BaseException as error:
            status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
            run.finish(status, record.about | {"ended": now()})
            raise

        with averaged(learner.optimizer):
            learner.model.save(results / "model.safetensors")
        record.about["ended"] = record.timings[-1]["time"]
        record.about["model_sha256"] = sha256(results / "model.safetensors")
        record.write(results)
        run.finish("FINISHED", record.about)


class _Learner(NamedTuple):
    model: RowLSTM
    optimizer: torch.optim.Optimizer
    batches: Batches


def _learn(
    params: Params,
    data: Mapping[str, Sequences],
    learner: _Learner,
    saved: Checkpoint,
    step: int,
    record: Training,
    clock: Clock,
    run: Follower,
) -> None:
    """Train on from a step to the last; raises Interrupted where a signal came, all being saved.

    MLflow is shown the rows that a checkpoint holds and no other, so that a training that goes on
    from one measures none of them a second time.
    """
    settings, before, shown = params.train, clock.seconds, 0

    def show() -> None:
        nonlocal shown
        run.log_rows(record.rows[shown:], record.timings[shown:])
        shown = len(record.rows)

    def save() -> None:
        saved.save(*learner, {"step": step, "seconds": clock.seconds, "record": vars(record)})
        show()

    show()
    evaluations = fit(
        learner.model,
        learner.optimizer,
        learner.batches,
        *(data[split] for split in SPLITS),
        start=step,
        steps=settings.steps,
        eval_every=settings.eval_every,
        eval_batch_size=settings.eval_batch_size,
        recorded=data["train"].labels.device.type == "cuda",
        augment=Augmentation(**params.augment.model_dump()),
        rate_at=_rates(settings),
        clip_norm=settings.clip_norm,
    )
    # shown on a terminal only
    with tqdm(
        evaluations, "train", settings.steps, initial=step, unit=" steps", disable=None
    ) as bar:
        for evaluation in bar:
            step += 1
            if evaluation:
                record.rows.append(row(evaluation))
                record.timings.append(row(clock.read(step)))
                bar.set_postfix(loss=f"{evaluation.train_loss:.3f}", refresh=False)
                tqdm.write(_reference_line(evaluation))
            if signal := signals.came():
                save()
                where = f"step {step:,} of {settings.steps:,}"
                raise Interrupted(signal, f"saved at {where}: run it again, and it goes on there")
            due = evaluation or step % settings.checkpoint_every == 0
            if step == settings.steps or (due and saved.affordable(clock.seconds - before)):
                save()


def _load(saved: Checkpoint, learner: _Learner, steps: int) -> Mapping[str, Any] | None:
    """The state of the last checkpoint, which the learner is brought to; None for none."""
    try:
        state = saved.load(*learner)
    except Damaged as error:
        print(f"{error}; set aside as {saved.set_aside().name}, and the training starts over")
        return None
    if state:
        print(f"on from step {state['step']:,} of {steps:,}, its last checkpoint")
    return state


def _say_who_trains(holder: str) -> None:
    print(f"this very training is at work in {holder}; waiting for its end", flush=True)


def _start(params: Params, data: Sequences, where: torch.device, computes_in: str) -> _Learner:
    torch.manual_seed(params.seed)
    model = _model(params, data, where)
    model.precision = computes_in
    settings = params.train
    optimizer = AveragingAdam(
        model,
        settings.learning_rate,
        averaging=settings.averaging,
        weight_decay=settings.weight_decay,
    )
    shuffles = torch.Generator().manual_seed(params.seed)
    batches = Batches(len(data), settings.batch_size, shuffles, where)
    return _Learner(model, optimizer, batches)


def _model(params: Params, data: Sequences, where: torch.device) -> RowLSTM:
    _, num_rows, input_size = data.pixels.shape
    return RowLSTM(
        input_size=input_size,
        num_classes=data.num_classes,
        num_rows=num_rows,
        **params.model.model_dump(),
    ).to(where)


def _rates(settings: TrainParams) -> Callable[[int], float] | None:
    """The learning rate of each step, where it is not the same one."""
    if settings.schedule == "constant":
        return None
    return lambda step: one_cycle(settings.learning_rate, step, settings.steps)


def _facts(
    params: Params, files: dict[str, Path], where: torch.device, computes_in: str
) -> dict[str, Any]:
    return {
        "seed": params.seed,
        "model": params.model.model_dump(),
        "augment": params.augment.model_dump(),
        "train": params.train.model_dump(exclude={"device", "checkpoint_every", "precision"}),
        "data": {split: sha256(file) for split, file in files.items()},
        "code": checkpoint.code_digest(stage.code("train")),
        "versions": provenance.versions("torch", "numpy", "safetensors"),
        "device": device.describe(where),
        "precision": computes_in,
        "threads": torch.get_num_threads(),
    }


def _about(
    params: Params,
    files: dict[str, Path],
    data: dict[str, Sequences],
    facts: dict[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    found, train = provenance.observe(Path.cwd()), data["train"]
    training_id = uuid.uuid4().hex
    sections = {
        "seed": params.seed,
        "fetch": {"dataset": train.dataset},
        "preprocess": train.preprocess,
        "model": params.model.model_dump(),
        "augment": params.augment.model_dump(),
        "train": params.train.model_dump(),
    }
    return {
        "training_id": training_id,
        "name": found.dvc_experiment or f"{train.dataset}-seed-{params.seed}-{training_id[:6]}",
        "started": now(),
        "fingerprint": fingerprint,
        "dataset": train.dataset,
        "image": list(train.pixels.shape[1:]),
        "data": {
            split: {
                "file": str(files[split]),
                "images": len(data[split]),
                "sha256": facts["data"][split],
            }
            for split in SPLITS
        },
        "device": facts["device"],
        "precision": facts["precision"],
        "threads": facts["threads"],
        "commit": found.commit,
        "dirty": bool(found.patch),
        "dvc_experiment": found.dvc_experiment,
        "dvc_baseline": found.dvc_baseline,
        "versions": provenance.versions("torch", "numpy", "safetensors", "mlflow", "dvc"),
        "params": sections,
        "patch": found.patch,
    }


def _reference_line(measured: Evaluation) -> str:
    return (
        f"Iter{measured.epoch}, step {measured.step}, "
        f"train-test {measured.train_accuracy:g}-{measured.test_accuracy:g}"
    )


if __name__ == "__main__":
    stage.run(train)
