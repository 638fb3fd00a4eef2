"""params.yaml as frozen, validated types; the only reader of that file."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from mnist_lstm import UserError
from mnist_lstm.datasets import DATASETS, NAMES

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class FetchParams(_Section):
    """Which data set: one of `datasets.NAMES`."""

    dataset: str

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.dataset not in NAMES:
            raise PydanticCustomError(
                "dataset",
                "fetch.dataset must be one of {names}, is {dataset}",
                {"names": ", ".join(NAMES), "dataset": repr(self.dataset)},
            )
        return self


class PreprocessParams(_Section):
    """How the training images are split: `validation_size` images; None: the first ones."""

    validation_size: Count
    split_seed: Seed | None


class ModelParams(_Section):
    """The network: units a layer, layers, fraction of a layer's output dropped in training."""

    hidden_size: Count
    num_layers: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    forget_bias: float
    implementation: Literal["fused", "unrolled"]


class TrainParams(_Section):
    """The training: updates, images an update, learning rate, updates between evaluations."""

    steps: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    eval_every: Count
    eval_batch_size: Count
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class EvaluateParams(_Section):
    """The evaluation: images at once."""

    batch_size: Count


class Params(_Section):
    """All of params.yaml, which has every number once."""

    seed: Seed
    fetch: FetchParams
    preprocess: PreprocessParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams

    def misfit(self, train_images: int) -> str | None:
        """What cannot work with a data set of so many training images, if anything: one line."""
        name, size = self.fetch.dataset, self.preprocess.validation_size
        left = train_images - size
        if left < 1:
            return (
                f"preprocess.validation_size must leave images to train on: it is {size}, and "
                f"fetch.dataset {name} has {train_images} training images"
            )
        if self.train.batch_size > left:
            return (
                f"train.batch_size must be at most the {left} images that {name} has left to train "
                f"on, is {self.train.batch_size}"
            )
        return None

    @model_validator(mode="after")
    def _fits_the_data(self) -> Self:
        dataset = DATASETS.get(self.fetch.dataset)  # preprocess counts the images of the user's own
        if dataset and (mistake := self.misfit(dataset.train_images)):
            raise PydanticCustomError("combination", "{mistake}", {"mistake": mistake})
        return self


def load(path: Path) -> Params:
    """Read and validate a params.yaml, all of it.

    Raises UserError with one line for the first mistake: the file, the key, what it must be, what
    it is.
    """
    try:
        return Params.model_validate(_read(path))
    except ValidationError as error:
        # an unknown key first: it is often the misspelt one of a key that is missing
        first, *others = sorted(
            error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"
        )
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{path}: {_explain(first)}{more}") from None


def values_of(path: Path, keys: list[str]) -> dict[str, object]:
    """The values that a params.yaml has at dotted keys, unchecked; None where there is none."""
    found = {}
    for key in keys:
        value: Any = _read(path)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[key] = value
    return found


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without the silent overwriting of a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} comes twice in the section", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _read(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `git checkout {path}` brings it back") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path}: {where}{error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None


def _explain(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "dataset" | "combination":
            return error["msg"]
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is not a known key{_nearest(key)}"
        case "model_type":
            what = f"{key} must be a section (keys and values)" if key else "must have sections"
            return f"{what}, is {_shown(value)}"
        case "greater_than_equal":
            return f"{key} must be at least {context['ge']:g}, is {value}"
        case "greater_than":
            return f"{key} must be above {context['gt']:g}, is {value}"
        case "less_than":
            return f"{key} must be below {context['lt']:g}, is {value}"
        case "finite_number":
            return f"{key} must be finite, is {value}"
        case "int_type" | "float_type":
            number = "a whole number" if error["type"] == "int_type" else "a number"
            return f"{key} must be {number}, is {_shown(value)}{_yaml_hint(value)}"
        case "string_type":
            return f"{key} must be text, is {_shown(value)}"
        case "literal_error":
            return f"{key} must be {context['expected']}, is {_shown(value)}"
        case "string_pattern_mismatch":
            return f"{key} must be auto, cpu, cuda, cuda:N or mps, is {_shown(value)}"
        case _:
            return f"{key}: {error['msg']}, is {_shown(value)}"


def _shown(value: object) -> str:
    kinds = {str: "text", bool: "true/false", dict: "a section", list: "a list"}
    kind = next((name for type_, name in kinds.items() if isinstance(value, type_)), "")
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, str):
        value = repr(value)
    text = "nothing" if value is None else " ".join(str(value).split())
    return (text if len(text) <= 60 else text[:57] + "…") + (f" ({kind})" if kind else "")


def _yaml_hint(value: object) -> str:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return ""
    return "" if number is None else f"; write {number:.12f}".rstrip("0").rstrip(".")


def _nearest(key: str) -> str:
    sections = {
        name: field.annotation.model_fields
        for name, field in Params.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    known = [*Params.model_fields, *(f"{s}.{name}" for s in sections for name in sections[s])]
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
