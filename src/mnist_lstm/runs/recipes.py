"""Recipes and their seeds: the trainings that differ in nothing but the seed.

A recipe is its parameters without the seed. Each seed has results, or a record, which `mnist-lstm
seeds` writes. Records in the project count wherever they are, if git does not ignore them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_lstm import UserError, git
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import FinishedRecord, Row, parse_json, read_rows
from mnist_lstm.pipeline.typed_json import Time, as_record
from mnist_lstm.runs.history import History, Result
from mnist_lstm.runs.listing import SECTIONS

SEEDS = "seeds of "  # the name of a recipe's parent run in MLflow begins so
# the name of an experiment of `mnist-lstm seeds`
SEED = re.compile(r"(.+)-seed-\d+-[0-9a-f]{6}")
# the name of an experiment of `mnist-lstm search`
TRIAL = re.compile(r"(.+)-trial-\d+-[0-9a-f]{6}")
FIGURES = (("validation", "accuracy"), ("test", "accuracy"), ("validation", "loss"))


# splits whose images a training is judged by
JUDGED_BY = ("validation", "test")


@dataclass(frozen=True)
class Seed:
    """A training of a recipe: from its results, or from a record where `result` is None.

    `images` are the SHA-256 of the images that it is judged by, by split; early records have none.
    `conditions` are what else may make a difference: device, precision and version of torch.
    """

    seed: int
    name: str
    training_id: str
    started: str
    ended: str
    metrics: Mapping[str, Mapping[str, float]]
    curve: Sequence[Row]
    images: Mapping[str, str]
    conditions: Mapping[str, str]
    result: Result | None = None


@dataclass(frozen=True)
class Recipe:
    """Parameters by dotted key, without the seed, and the latest training of each seed.

    All seeds are judged by the same images, those of the latest training: own images may change.
    `trainings` are all that have results here, earlier ones of the same seed too.
    """

    name: str
    params: Mapping[str, Any]
    seeds: Sequence[Seed]
    trainings: Sequence[Result]

    @property
    def key(self) -> str:
        """The digest of the parameters."""
        return _key(self.params)

    @property
    def names(self) -> list[str]:
        """All names that the trainings say, that of the earliest first."""
        return list(dict.fromkeys(_names_of(self.trainings)))

    @property
    def images(self) -> Mapping[str, str]:
        """The SHA-256 of the images that the seeds are judged by, by split; empty if unknown."""
        return next((each.images for each in self.seeds if each.images), {})

    def values(self, split: str, figure: str) -> dict[int, float]:
        """A metric at the end, by seed."""
        return {each.seed: each.metrics[split][figure] for each in self.seeds}


def recipes(history: History) -> list[Recipe]:
    """The recipes that were trained by `mnist-lstm seeds` and have results here."""
    found: dict[str, list[Result]] = {}
    for result in history.results:
        found.setdefault(_key(params.flatten(result.params)), []).append(result)
    records = None
    made = []
    for results in found.values():
        if name := next(_names_of(results), None):
            records = list(_records(history)) if records is None else records
            recipe = _recipe(history, name, params.flatten(results[0].params), results, records)
            made += [recipe] if recipe.seeds else []
    return made


def recipe_of(history: History, settings: Mapping[str, Any], name: str) -> Recipe:
    """A recipe by its parameters, with all its seeds that have results or records here.

    The trials of a search are none of them.
    """
    key = _key(settings)
    results = [each for each in history.results if _key(params.flatten(each.params)) == key]
    return _recipe(history, name, settings, results, list(_records(history)))


def _recipe(
    history: History,
    name: str,
    settings: Mapping[str, Any],
    results: Sequence[Result],
    records: Sequence[tuple[Mapping[str, Any], Seed]],
) -> Recipe:
    key, seeds = _key(settings), dict[int, Seed]()
    for given, seed in records:
        if key in _keys_of_record(given):
            seeds[seed.seed] = max(seed, seeds.get(seed.seed, seed), key=lambda each: each.started)
    for result in results:
        if _was_chosen(result):
            continue
        seed = _of_result(history, result)
        before = seeds.get(seed.seed)
        # a result comes before a record: it has its curve for certain
        if _is_whole(seed) and not (before and before.result and before.started > seed.started):
            seeds[seed.seed] = seed
    kept = {key: value for key, value in _trained(settings).items() if key != "seed"}
    same = _of_the_latest_images([seeds[number] for number in sorted(seeds)])
    return Recipe(name, kept, same, results)


def _of_the_latest_images(seeds: Sequence[Seed]) -> list[Seed]:
    """The seeds that are judged by the images of the latest training, as far as they are known."""
    known = [each for each in seeds if each.images]
    latest = max(known, key=lambda each: each.ended).images if known else {}
    return [each for each in seeds if each.images in ({}, latest)]


def images_of(record: FinishedRecord) -> dict[str, str]:
    """The SHA-256 of the images that a training is judged by, by split."""
    return {split: record.data[split].sha256 for split in JUDGED_BY if split in record.data}


def _names_of(results: Iterable[Result]) -> Iterator[str]:
    """The names of recipes in the names of experiments, those of the earliest results first."""
    for result in results:
        for name in (result.record.dvc_experiment or "", *sorted(result.experiments)):
            if named := SEED.fullmatch(name):
                yield named[1]


def _was_chosen(result: Result) -> bool:
    """Whether a search trained a result, and not `mnist-lstm seeds`: the best trial was lucky."""
    return not any(_names_of([result])) and any(map(TRIAL.fullmatch, experiments_of(result)))


def experiments_of(result: Result) -> set[str]:
    """The names of the experiments that have a result."""
    return {result.record.dvc_experiment or "", *result.experiments}


def _of_result(history: History, result: Result) -> Seed:
    record = result.record
    return Seed(
        int(params.flatten(result.params).get("seed", 0)),
        *(record.name, record.training_id, record.started, record.ended),
        history.metrics(result),
        history.rows(result.training, "curve.csv"),
        images_of(record),
        _conditions(record.device, record.precision, record.versions),
        result,
    )


def _conditions(device: str, precision: str, versions: Mapping[str, str]) -> dict[str, str]:
    return {"device": device, "precision": precision, "torch": versions.get("torch", "unknown")}


def _records(history: History) -> Iterator[tuple[Mapping[str, Any], Seed]]:
    """The parameters and the training of each record of a seed; a damaged record is left out."""
    for path in project_records(history.root, "seed"):
        name, curve = str(path.relative_to(history.root)), path.with_suffix(".csv")
        try:
            found = parse_record(path.read_bytes(), name)
            given = found["params"] | {"train.precision.was": found["precision"]}
            seed = Seed(
                seed=given["seed"],
                name=found["name"],
                training_id=found["training_id"],
                started=found["started"],
                ended=found["ended"],
                metrics=found["metrics"],
                curve=read_rows(curve) if curve.is_file() else [],
                images=found.get("images") or {},
                conditions=_conditions(
                    found["device"], found["precision"], found.get("versions") or {}
                ),
            )
        except UserError as error:
            history.leave_out(str(error))
            continue
        yield given, seed


@dataclass(frozen=True)
class _Record:
    """The fields of a seed's record that are read again."""

    params: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    seconds: float
    name: str
    training_id: str
    started: Time
    ended: Time
    commit: str | None
    dirty: bool
    device: str
    precision: str
    versions: Mapping[str, str] | None = None
    images: Mapping[str, str] | None = None


def parse_record(content: bytes, name: str) -> dict[str, Any]:
    """Parse the record of a seed. Raises UserError with `name` as file if it is none."""
    found = parse_json(content, name)
    record: _Record = as_record(_Record, found, name)
    for split, figure in FIGURES:
        as_record(float, record.metrics.get(split, {}).get(figure), name, f"{split}.{figure}")
    for key in ("seed", "train.steps"):
        as_record(int, record.params.get(key), name, f"params: {key}")
    return found


def project_records(root: Path, kind: str) -> list[Path]:
    """The records of seeds or of trials in the project: `seed-0.json` for example."""
    if not git.is_repository(root):
        return []
    options = ("--cached", "--others", "--exclude-standard")
    names = git.file_names(root, *options, paths=[f":(glob)**/{kind}-*.json"])
    return sorted(path for name in names if (path := root / name).is_file())


def _is_whole(seed: Seed) -> bool:
    """Whether a training has all FIGURES."""
    return all(figure in seed.metrics.get(split, {}) for split, figure in FIGURES)


def _trained(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a training depends on, with the keys that were added later."""
    known = params.ADDED | dict(settings)
    return {key: value for key, value in known.items() if key.partition(".")[0] in SECTIONS}


def _key(settings: Mapping[str, Any]) -> str:
    """The digest of the parameters without the seed.

    A key that was added later, and has the value that it had before, does not count.
    """
    kept = {
        key: value
        for key, value in _trained(settings).items()
        if key != "seed" and (key not in params.ADDED or params.ADDED[key] != value)
    }
    return digest(kept)


def digest(value: object) -> str:
    """A short hex digest of a value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _keys_of_record(given: Mapping[str, Any]) -> set[str]:
    """A record is of a recipe that names the precision of its training, and of one with `auto`."""
    settings = {key: value for key, value in given.items() if key != "train.precision.was"}
    precisions = ("auto", given["train.precision.was"])
    return {_key(settings), *(_key(settings | {"train.precision": each}) for each in precisions)}
