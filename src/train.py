"""Train the row LSTM, on from its last checkpoint where there is one. Run: dvc repro train"""

import uuid
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mnist_lstm import UserError, checkpoint, device, provenance, stage
from mnist_lstm.clock import Clock, now
from mnist_lstm.files import sha256
from mnist_lstm.model import RowLSTM
from mnist_lstm.params import Params
from mnist_lstm.results import Training, row
from mnist_lstm.sequences import SPLITS, Batches, Sequences
from mnist_lstm.tracking import Follower
from mnist_lstm.training import Evaluation, fit

PRECISION = "float32"


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
    model, optimizer, batches = _start(params, data["train"], where)

    facts = _facts(params, files, where)
    saved = checkpoint.Checkpoint(stage.root() / ".checkpoints", checkpoint.fingerprint(facts))
    if state := saved.load():
        checkpoint.restore(state, model, optimizer, batches)
        record = Training(**state["record"])
        print(f"on from step {record.step:,} of {params.train.steps:,}, its last checkpoint")
    else:
        record = Training(_about(params, files, data, facts, saved.fingerprint))
        print(
            f"{params.train.steps:,} steps of {params.train.batch_size:,} images out of "
            f"{len(data['train']):,}, on {facts['device']} with {facts['threads']} threads"
        )

    def save() -> None:
        state = checkpoint.capture(model, optimizer, batches)
        saved.save(state | {"record": vars(record)})

    save()  # before the store knows it, so that a kill cannot leave a run that nothing goes on with
    run = Follower(stage.root(), record.about, tqdm.write)
    run.log_rows(record.rows, record.timings)
    clock = Clock(where, record.seconds)
    settings = params.train
    try:
        with tqdm(  # shown on a terminal only
            batches, "train", settings.steps, initial=record.step, unit=" steps", disable=None
        ) as bar:
            for evaluation in fit(
                model,
                optimizer,
                bar,
                *(data[split] for split in SPLITS),
                start=record.step,
                steps=settings.steps,
                eval_every=settings.eval_every,
                eval_batch_size=settings.eval_batch_size,
            ):
                record.rows.append(row(evaluation))
                record.timings.append(row(clock.read(evaluation.step)))
                save()
                run.log_rows(record.rows[-1:], record.timings[-1:])
                bar.set_postfix(loss=f"{evaluation.train_loss:.3f}", refresh=False)
                tqdm.write(_reference_line(evaluation))
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        run.finish(status, record.about | {"ended": now()})
        raise

    model.save(results / "model.safetensors")
    record.about["ended"] = record.timings[-1]["time"]
    record.about["model_sha256"] = sha256(results / "model.safetensors")
    record.write(results)
    run.finish("FINISHED", record.about)


def _start(
    params: Params, data: Sequences, where: torch.device
) -> tuple[RowLSTM, torch.optim.Optimizer, Batches]:
    torch.manual_seed(params.seed)
    model = RowLSTM(
        input_size=data.pixels.shape[2],
        num_classes=data.num_classes,
        **params.model.model_dump(),
    ).to(where)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=params.train.learning_rate, eps=1e-8)
    shuffles = torch.Generator().manual_seed(params.seed)
    return model, optimizer, Batches(len(data), params.train.batch_size, shuffles)


def _facts(params: Params, files: dict[str, Path], where: torch.device) -> dict[str, Any]:
    return {
        "seed": params.seed,
        "model": params.model.model_dump(),
        "train": params.train.model_dump(exclude={"device"}),
        "data": {split: sha256(file) for split, file in files.items()},
        "code": checkpoint.code_digest(stage.code("train")),
        "versions": provenance.versions("torch", "numpy", "safetensors"),
        "device": device.describe(where),
        "precision": PRECISION,
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
