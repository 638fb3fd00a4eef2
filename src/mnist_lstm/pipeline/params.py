"""params.yaml as frozen, validated types. Only this module checks the file's values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from mnist_lstm import UserError
from mnist_lstm.data.datasets import DATASETS, NAMES
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.pipeline.params_mistake import explain, similar
from mnist_lstm.pipeline.strict_yaml import cut


def _in(unit: str) -> Any:
    return Field(json_schema_extra={"unit": unit})


def _no_other_type(value: object) -> object:
    """Literal takes true and 1.0 for 1. Raises for these what Literal raises for other values."""
    if type(value) is not int:
        raise PydanticKnownError("literal_error", {"expected": "1, 3, 5 or 7"})
    return value


Count = Annotated[int, Field(ge=1, lt=2**63)]  # torch counts in 64 bits
Images = Annotated[Count, _in("images")]
Steps = Annotated[Count, _in("steps")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


# keys that were added later: params.yaml files and records without them mean these values
ADDED = {
    "preprocess.train_size": None,
    "model.cell": "lstm",
    "model.window": 1,
    "train.optimizer": "adam",
    "train.processes": 1,
    "train.keep_best": False,
    "evaluate.shifts": 0,
}


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class FetchParams(_Section):
    """The data set: one of `datasets.NAMES`."""

    dataset: str = Field(
        description="Data set; digits comes with scikit-learn, own is read from data/own: "
        "docs/datasets.md",
        json_schema_extra={"enum": list(NAMES)},
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.dataset not in NAMES:
            raise PydanticCustomError(
                "dataset",
                "fetch.dataset must be one of {names}, is {dataset}{hint}",
                {
                    "names": ", ".join(NAMES),
                    "dataset": cut(repr(self.dataset)),
                    "hint": similar(self.dataset, NAMES),
                },
            )
        return self


class PreprocessParams(_Section):
    """The split of the training images into training and validation."""

    validation_size: Images = Field(
        description="Number of images moved from the training set to the validation set"
    )
    train_size: Images | None = Field(
        description="Number of images to train on; null: all that are not validation images"
    )
    split_seed: Seed | None = Field(
        description="Seed that draws the validation images, and the training images if train_size "
        "is a number; null takes the first images, as the reference does"
    )


class ModelParams(_Section):
    """The network."""

    hidden_size: Annotated[int, Field(ge=1, le=65_536), _in("units")] = Field(
        description="Size of each layer"
    )
    num_layers: Annotated[int, Field(ge=1, le=1000), _in("layers")] = Field(
        description="Number of recurrent layers"
    )
    dropout: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Fraction of each layer's output that is dropped during training"
    )
    cell: Literal["lstm", "gru", "rnn"] = Field(
        description="Kind of the recurrent layers: lstm, as in the reference, gru, or rnn, the "
        "plain one with tanh and without gates"
    )
    forget_bias: Annotated[float, Field(ge=-1000, le=1000)] = Field(
        description="Initial bias of the LSTM's forget gates; gru and rnn have none, and do not "
        "read this value"
    )
    implementation: Literal["fused", "unrolled"] = Field(
        description="Two ways to compute the same model: unrolled loops over the time steps, as "
        "the reference does; fused takes less time"
    )
    reads: Literal["rows", "columns", "both"] = Field(
        description="What one time step reads: a row of pixels, as in the reference, or a column; "
        "both has separate layers for rows and columns, and joins their outputs before the last "
        "layer"
    )
    directions: Literal["forward", "both"] = Field(
        description="Direction in which the layers read the time steps: forward from the first to "
        "the last, or both forward and backward"
    )
    pooling: Literal["last", "mean"] = Field(
        description="Input of the last layer: the top recurrent layer's output at the last time "
        "step, or the mean of its outputs at all time steps"
    )
    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        description="Initial recurrent weights: uniform, as all other weights of these layers, or "
        "orthogonal"
    )
    window: Annotated[Literal[1, 3, 5, 7], BeforeValidator(_no_other_type), _in("rows")] = Field(
        description="Rows that one time step reads, or columns: 1, as in the reference, or the "
        "one before and the one after it too (3), two of each (5) or three of each (7)"
    )


class AugmentParams(_Section):
    """Random distortions of the training images, drawn anew in each step; 0 switches one off."""

    rotation: Annotated[float, Field(ge=0, le=180), _in("degrees")] = Field(
        description="Largest rotation, to the left or to the right"
    )
    scale: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Height and width are each divided by 1 ± this at most: 0.1 gives 0.91 to 1.11 "
        "times the size, 0.5 gives 0.67 to 2 times"
    )
    shear: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Largest slant, before the scaling: pixels to the side for each pixel of height"
    )
    shift: Annotated[float, Field(ge=0, le=1000), _in("pixels")] = Field(
        description="Largest shift, horizontally and vertically, before rotation, shear and scaling"
    )
    elastic: Annotated[float, Field(ge=0, le=1000), _in("pixels")] = Field(
        description="Elastic distortion: standard deviation of the displacements of points 7 "
        "pixels apart"
    )


class TrainParams(_Section):
    """The training. A step is one update of the weights."""

    steps: Steps = Field(description="Length of the training, in updates of the weights")
    batch_size: Images = Field(description="Number of images in the batch of one step")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = Field(
        description="Learning rate of the optimizer; with a schedule, the highest learning rate"
    )
    optimizer: Literal["adam", "sgd", "rmsprop"] = Field(
        description="What computes the updates: adam, as in the reference, sgd (stochastic "
        "gradient descent with a momentum of 0.9) or rmsprop, all with torch's own other values; "
        "each needs a learning rate of its own"
    )
    schedule: Literal["constant", "one-cycle"] = Field(
        description="Learning rate over the steps: one-cycle rises during the first three tenths "
        "of the steps, then falls to zero"
    )
    weight_decay: Annotated[float, Field(ge=0, le=1000)] = Field(
        description="Decoupled weight decay, as in AdamW"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        description="Largest norm of all gradients together; larger gradients are scaled down to "
        "it; null: no clipping"
    )
    averaging: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Decay of the moving average of the weights; the averaged weights are "
        "evaluated and saved; 0: no averaging"
    )
    processes: Annotated[int, Field(ge=1, le=64), _in("processes")] = Field(
        description="Number of processes that train together, each on a part of every batch; on "
        "GPUs, each has one of its own: docs/machines.md"
    )
    keep_best: bool = Field(
        description="Whether to keep the model of the evaluation with the highest validation "
        "accuracy, the earliest of equals, beside the last one: docs/runs.md; the last one is "
        "evaluated, promoted and served all the same"
    )
    eval_every: Steps = Field(description="Steps from one evaluation to the next")
    checkpoint_every: Steps = Field(
        description="Steps from one checkpoint to the next; each evaluation makes one too; a "
        "checkpoint is left out while checkpoints have taken 2 % of the training's time"
    )
    eval_batch_size: Images = Field(
        description="Number of images that an evaluation during the training computes at once; it "
        "needs memory"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$")] = Field(
        description="Device that trains; auto takes an NVIDIA GPU if there is one, otherwise the "
        "CPU",
        examples=["auto", "cpu", "cuda", "cuda:0", "mps"],
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        description="Number format in which the recurrent layers compute; the weights are always "
        "float32; auto takes float32 on a CPU, and bfloat16 on a GPU that multiplies it natively"
    )


class EvaluateParams(_Section):
    """The evaluation of the trained model."""

    batch_size: Images = Field(
        description="Number of images that the evaluation computes at once; it needs memory"
    )
    shifts: Annotated[int, Field(ge=0, le=4), _in("pixels")] = Field(
        description="Also measure shifted_accuracy: the accuracy of the mean answer to an image "
        "and its copies that are shifted by up to this many pixels, horizontally and vertically; "
        "0: do not measure it"
    )


class PromoteParams(_Section):
    """When a model becomes the champion. No stage reads this section."""

    margin: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="`mnist-lstm promote` makes a model the champion if its validation accuracy is "
        "higher than the champion's by more than this"
    )


class Params(_Section):
    """All of params.yaml, the only place that has these values."""

    seed: Seed = Field(
        description="Seed of the initial weights, the shuffles, the dropout masks and the "
        "distortions"
    )
    fetch: FetchParams
    preprocess: PreprocessParams
    model: ModelParams
    augment: AugmentParams
    train: TrainParams
    evaluate: EvaluateParams
    promote: PromoteParams

    def train_images_of(self, images: int) -> int:
        """The number of images to train on, out of a data set's `images` training images.

        Raises UserError if validation_size leaves none, or fewer than train_size.
        """
        size, wanted = self.preprocess.validation_size, self.preprocess.train_size
        if size >= images:
            raise UserError(
                f"preprocess.validation_size must leave images to train on: it is {size}, and "
                f"fetch.dataset {self.fetch.dataset} has {images} training images"
            )
        if wanted is None:
            return images - size
        if wanted > images - size:
            raise UserError(
                f"preprocess.train_size must be at most the {images - size} images that "
                f"fetch.dataset {self.fetch.dataset} has left without the validation images, is "
                f"{wanted}"
            )
        return wanted

    @model_validator(mode="after")
    def _has_a_step_that_trains(self) -> Self:
        if self.train.schedule == "one-cycle" and self.train.steps < 2:
            raise PydanticCustomError(
                "combination",
                "train.steps must be at least 2 with train.schedule one-cycle, whose last step has "
                "a learning rate of 0, is {steps}",
                {"steps": self.train.steps},
            )
        return self

    @model_validator(mode="after")
    def _has_work_for_each_process(self) -> Self:
        if self.train.batch_size < self.train.processes:
            raise PydanticCustomError(
                "combination",
                "train.batch_size must be at least train.processes, {processes}, is {size}",
                {"processes": self.train.processes, "size": self.train.batch_size},
            )
        return self

    @model_validator(mode="after")
    def _fits_the_data(self) -> Self:
        dataset = DATASETS.get(self.fetch.dataset)
        if dataset is None:
            return self  # the user's own data set: preprocess counts its images
        try:
            left = self.train_images_of(dataset.train_images)
        except UserError as error:
            raise PydanticCustomError("combination", "{it}", {"it": str(error)}) from None
        if self.train.batch_size > left:
            raise PydanticCustomError(
                "combination",
                "train.batch_size must be at most the {left} images that {name} has left to train "
                "on, is {size}",
                {"left": left, "name": dataset.name, "size": self.train.batch_size},
            )
        return self


class Mistake(UserError):
    """A mistake in a params.yaml. `said` is what is wrong, without where it is."""

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"{where} {said}")
        self.said = said


def load(path: Path, changes: Mapping[str, object] | None = None) -> Params:
    """Read and validate a whole params.yaml. `changes` replaces the values at some dotted keys.

    Raises Mistake with one line about the first mistake: the file, or -S for a key of `changes`,
    the key, what its value must be, what it is. Raises UserError if the file cannot be read, or is
    what a search tries.
    """
    changed = changes or {}
    tree: Any = strict_yaml.read(path)
    if isinstance(tree, dict):
        if _is_space(tree):
            raise UserError(
                f"{path}: no recipe, but what a search tries: `mnist-lstm search 24 --space {path}`"
            )
        tree = completed(with_values(tree, changed))
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        # report an unknown key first: often it is a misspelt name, and the right one is missing
        first, *others = sorted(
            error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"
        )
        more = f" (and {len(others)} more)" if others else ""
        said = explain(first, _sections())
        key = said.partition(" ")[0].rstrip(":")  # each line begins with its key
        is_changed = any(each == key or each.startswith(f"{key}.") for each in changed)
        raise Mistake("-S" if is_changed else f"{path}:", f"{said}{more}") from None


def _is_space(tree: Mapping[Any, Any]) -> bool:
    """Whether a file has keys with dots and no section, as a search's has."""
    sections = Params.model_fields.keys() - {"seed"}
    return any("." in str(key) for key in tree) and not tree.keys() & sections


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Turn a tree into one level by joining its keys: `model.hidden_size`, `test/recall/7`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            leaves |= {f"{key}{separator}{name}": leaf for name, leaf in below.items()}
        else:
            leaves[key] = value
    return leaves


def with_values(tree: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """Copy a tree with other values at dotted keys. Missing sections are added."""
    changed = dict(tree)
    for key, value in values.items():
        section, _, rest = key.partition(".")
        below = changed.get(section)
        changed[section] = (
            with_values(below if isinstance(below, Mapping) else {}, {rest: value})
            if rest
            else value
        )
    return changed


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a params.yaml, or the part of it that a record has, with the keys ADDED since."""
    missing = {
        key: value
        for key, value in ADDED.items()
        if isinstance(section := tree.get(key.partition(".")[0]), Mapping)
        and key.partition(".")[2] not in section
    }
    return with_values(tree, missing)


def value_at(tree: object, key: str) -> Any:
    """The value at a dotted key of a tree; None if the tree has no such key."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def short_name(key: str) -> str:
    """A dotted key without its section: the last part alone."""
    return key.rpartition(".")[2]


def assignments(values: Mapping[str, Any]) -> list[str]:
    """Parameters as KEY=VALUE without their sections, as `--where` takes them."""
    return [f"{short_name(key)}={format_value(value)}" for key, value in values.items()]


def format_value(value: object) -> str:
    """A parameter's value as it is written in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value)


def values_of(path: Path, keys: list[str]) -> dict[str, object]:
    """The values at dotted keys of a params.yaml, without validation; None for a missing key."""
    tree = strict_yaml.read(path)
    return {key: value_at(tree, key) for key in keys}


def _sections() -> dict[str, list[str]]:
    """The keys of each section; those of the file itself are below the empty name."""
    return {"": list(Params.model_fields)} | {
        field: list(type_.annotation.model_fields)
        for field, type_ in Params.model_fields.items()
        if isinstance(type_.annotation, type) and issubclass(type_.annotation, BaseModel)
    }
