"""begin(): the record with which a training starts, of what only that moment knows."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.pipeline import company, provenance
from mnist_lstm.pipeline.params import Params
from mnist_lstm.pipeline.result_files import RunRecord, SplitRecord
from mnist_lstm.pipeline.timing import now


def begin(
    params: Params,
    files: Mapping[str, Path],
    data: Mapping[str, Sequences],
    facts: Mapping[str, Any],
    fingerprint: str,
    root: Path,
) -> RunRecord:
    """The record of a training that starts now, in the project in `root`.

    `files` and `data` have one entry for each split. `facts` are what the weights depend on, of
    which `fingerprint` is the digest.
    """
    found, train = provenance.observe(Path.cwd()), data["train"]
    origin = provenance.Origin.here(root)
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
