"""params.yaml as frozen, validated types; the only reader of that file."""

import difflib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mnist_lstm import UserError
from mnist_lstm.data.datasets import DATASETS, NAMES
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.pipeline.strict_yaml import cut, dotted


def _in(unit: str) -> Any:
    return Field(json_schema_extra={"unit": unit})


Count = Annotated[int, Field(ge=1, lt=2**63)]  # torch counts in 64 bits
Images = Annotated[Count, _in("images")]
Steps = Annotated[Count, _in("steps")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class FetchParams(_Section):
    """Which data set: one of `datasets.NAMES`."""

    dataset: str = Field(
        description="Data set; digits is inside scikit-learn, own in data/own: docs/datasets.md",
        json_schema_extra={"enum": list(NAMES)},
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.dataset not in NAMES:
            raise PydanticCustomError(
                "dataset",
                "fetch.dataset must be one of {names}, is {dataset}",
                {"names": ", ".join(NAMES), "dataset": cut(repr(self.dataset))},
            )
        return self


class PreprocessParams(_Section):
    """How the training images are split."""

    validation_size: Images = Field(description="Images taken out of the training set")
    split_seed: Seed | None = Field(
        description="Seed that draws these images; null takes the first ones, as the reference does"
    )


class ModelParams(_Section):
    """The network."""

    hidden_size: Annotated[Count, _in("units")] = Field(description="Size of each LSTM layer")
    num_layers: Annotated[Count, _in("layers")] = Field(description="Number of LSTM layers")
    dropout: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Part of each layer's output that is dropped while training"
    )
    forget_bias: float = Field(description="Initial bias of the forget gates")
    implementation: Literal["fused", "unrolled"] = Field(
        description="Two ways to compute the same model: unrolled goes through the time steps by "
        "hand, as the reference does; fused takes less time"
    )
    reads: Literal["rows", "columns", "both"] = Field(
        description="What is a time step: the reference reads rows; both has layers for each, "
        "whose outputs are joined before the last layer"
    )
    directions: Literal["forward", "both"] = Field(
        description="Whether the layers read from the first time step on alone, or from the last "
        "one back as well"
    )
    pooling: Literal["last", "mean"] = Field(
        description="What the last layer is given: the output at the end, or the mean of all"
    )
    recurrent_init: Literal["uniform", "orthogonal"] = Field(
        description="How the recurrent weights start: uniform as the others, or orthogonal"
    )


class AugmentParams(_Section):
    """Random distortions of the images that are trained on, new ones in each step; 0 is none."""

    rotation: Annotated[float, Field(ge=0, le=180), _in("degrees")] = Field(
        description="Turned by up to so much, either way"
    )
    scale: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Made higher and wider, or less so, by up to so much"
    )
    shear: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Slanted by up to so many pixels to the side for each pixel up"
    )
    shift: Annotated[float, Field(ge=0), _in("pixels")] = Field(
        description="Moved by up to so much, in both directions"
    )
    elastic: Annotated[float, Field(ge=0), _in("pixels")] = Field(
        description="Bent: standard deviation of the displacements of points 7 pixels apart"
    )


class TrainParams(_Section):
    """The training; a step is one update of the weights."""

    steps: Steps = Field(description="Length of the training, in updates of the weights")
    batch_size: Images = Field(description="Images that one step trains on")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        description="Learning rate of Adam, the highest one of its schedule"
    )
    schedule: Literal["constant", "one-cycle"] = Field(
        description="Learning rate over the steps: one-cycle rises over three tenths of them, then "
        "falls to zero"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        description="Decoupled weight decay, as in AdamW"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        description="Norm of all gradients above which they are scaled down to it; null is none"
    )
    averaging: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="Decay of the moving average of the weights, which is what is evaluated and "
        "kept; 0 is none"
    )
    eval_every: Steps = Field(description="Distance from one evaluation to the next")
    checkpoint_every: Steps = Field(
        description="Distance from one checkpoint to the next; evaluations make one too, and none "
        "is made while all of them took 2 % of the time"
    )
    eval_batch_size: Images = Field(
        description="Images at once in these evaluations: a matter of memory"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$")] = Field(
        description="What computes; auto takes CUDA where there is a GPU, else the CPU",
        examples=["auto", "cpu", "cuda", "cuda:0", "mps"],
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        description="Numbers that the LSTM layers compute in, the weights staying float32; auto "
        "takes bfloat16 on a CPU that multiplies it natively, else float32"
    )


class EvaluateParams(_Section):
    """The evaluation of the trained model."""

    batch_size: Images = Field(description="Images at once in the evaluation: a matter of memory")
    shifts: Annotated[int, Field(ge=0, le=4), _in("pixels")] = Field(
        description="Also tell the accuracy of the mean of the answers to an image moved by up to "
        "so much, in both directions: shifted_accuracy; 0: do not"
    )


class PromoteParams(_Section):
    """When a model becomes the champion; no stage reads it."""

    margin: Annotated[float, Field(ge=0, lt=1), _in("fraction")] = Field(
        description="By more than this part of the validation images, a model must read more of "
        "them right than the champion to take its place, for `mnist-lstm promote`"
    )


class Params(_Section):
    """All of params.yaml, which has every number once."""

    seed: Seed = Field(
        description="Seed of the initial weights, the shuffles and the dropout masks"
    )
    fetch: FetchParams
    preprocess: PreprocessParams
    model: ModelParams
    augment: AugmentParams
    train: TrainParams
    evaluate: EvaluateParams
    promote: PromoteParams

    def train_images_left(self, train_images: int) -> int:
        """Images to train on, out of so many, when the validation images are taken out.

        Raises UserError where that leaves none.
        """
        size = self.preprocess.validation_size
        if size >= train_images:
            raise UserError(
                f"preprocess.validation_size must leave images to train on: it is {size}, and "
                f"fetch.dataset {self.fetch.dataset} has {train_images} training images"
            )
        return train_images - size

    @model_validator(mode="after")
    def _fits_the_data(self) -> Self:
        dataset = DATASETS.get(self.fetch.dataset)
        if dataset is None:
            return self  # the user's own: preprocess counts its images
        try:
            left = self.train_images_left(dataset.train_images)
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


def load(path: Path, changes: Mapping[str, object] | None = None) -> Params:
    """Read and validate a params.yaml, all of it, with other values at some dotted keys.

    Raises UserError with one line for the first mistake: the file, the key, what it must be, what
    it is.
    """
    tree: Any = strict_yaml.read(path)
    if isinstance(tree, dict):
        tree = with_values(tree, changes or {})
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        # an unknown key first: it is often the misspelt one of a key that is missing
        first, *others = sorted(
            error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"
        )
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{path}: {_explain(first)}{more}") from None


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """A tree as one level, the keys on the way joined: `model.hidden_size`, `test/recall/7`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            leaves |= {f"{key}{separator}{name}": leaf for name, leaf in below.items()}
        else:
            leaves[key] = value
    return leaves


def with_values(tree: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """A copy of a tree with other values at dotted keys; sections are added where missing."""
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


def value_at(tree: object, key: str) -> Any:
    """The value at a dotted key of a tree; None where it has none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def short_name(key: str) -> str:
    """A dotted key without its section, which no two parameters need."""
    return key.rpartition(".")[2]


def values_of(path: Path, keys: list[str]) -> dict[str, object]:
    """The values that a params.yaml has at dotted keys, unchecked; None where there is none."""
    tree = strict_yaml.read(path)
    return {key: value_at(tree, key) for key in keys}


def _explain(error: ErrorDetails) -> str:
    key = dotted(error["loc"])
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "dataset" | "combination":
            return error["msg"]
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden" | "invalid_key":
            *section, name = map(str, error["loc"])
            return f"{key} is not a known key; {_nearest('.'.join(section), name)}"
        case "model_type":
            what = f"{key} must be a section (keys and values)" if key else "must have sections"
            return f"{what}, is {_described(value)}"
        case "greater_than_equal":
            return f"{key} must be at least {context['ge']:g}, is {value}"
        case "greater_than":
            return f"{key} must be above {context['gt']:g}, is {value}"
        case "less_than_equal":
            return f"{key} must be at most {context['le']:g}, is {value}"
        case "less_than":
            return f"{key} must be below {context['lt']:g}, is {value}"
        case "finite_number":
            return f"{key} must be finite, is {value}"
        case "int_type" | "float_type":
            number = "a whole number" if error["type"] == "int_type" else "a number"
            return f"{key} must be {number}, is {_described(value)}{_yaml_hint(value)}"
        case "string_type":
            return f"{key} must be text, is {_described(value)}"
        case "string_unicode":  # half a character, such as "\\ud800"
            return f"{key or 'a key'} must be Unicode text, is {_described(value)}"
        case "literal_error":
            return f"{key} must be {context['expected']}, is {_described(value)}"
        case "string_pattern_mismatch":
            return f"{key} must be auto, cpu, cuda, cuda:N or mps, is {_described(value)}"
        case _:
            return f"{key}: {error['msg']}, is {_described(value)}"


def _described(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (true/false)"
        case str():
            return f"{cut(repr(value))} (text)"
        case dict():
            return "a section"
        case list():
            return "a list"
        case _:
            return str(value)


def _yaml_hint(value: object) -> str:
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= 20 else None
    except ArithmeticError:
        return ""
    if number is None or not number.is_finite() or abs(number.adjusted()) > 20:
        return ""
    return f"; write {number:f}"


def _nearest(section: str, name: str) -> str:
    """The known key that was meant, as far as one can tell, else all that the section has.

    Names are compared without their section: train.lr and train.steps have nothing else in common.
    """
    sections = {"": list(Params.model_fields)} | {
        field: list(type_.annotation.model_fields)
        for field, type_ in Params.model_fields.items()
        if isinstance(type_.annotation, type) and issubclass(type_.annotation, BaseModel)
    }
    here = {key: f"{section}.{key}".lstrip(".") for key in sections[section]}
    anywhere = {
        key: f"{one}.{key}".lstrip(".") for one in reversed(sections) for key in sections[one]
    }
    for known, cutoff in ((here, 0.5), (anywhere, 0.7)):
        if near := difflib.get_close_matches(name, known, n=1, cutoff=cutoff):
            return f"did you mean {known[near[0]]}?"
    return f"known here are {', '.join(sections[section])}"
