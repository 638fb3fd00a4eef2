"""The space of a search: what is tried for each key of params.yaml. A file that people write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mnist_lstm import UserError
from mnist_lstm.pipeline import params, strict_yaml

RANGE = {"low", "high", "log", "step"}
# Sections whose keys cannot be tried, each with the keys that are excepted. These keys change no
# training, or they change the images by which trials are compared.
UNTRIED = {"fetch": set[str](), "preprocess": {"train_size"}, "evaluate": set(), "promote": set()}
DIGITS = 3  # a learning rate of 0.00213 is read by people; more digits decide nothing
PARTS = 1000  # of a range, or of a step, by at most one half of which a value is rounded


Space = Mapping[str, BaseDistribution]  # by dotted key


def suggest(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Optuna's values for a trial, by dotted key."""
    values: dict[str, Any] = {}
    for key, each in space.items():
        match each:
            case CategoricalDistribution():
                values[key] = trial.suggest_categorical(key, each.choices)
            case IntDistribution():
                values[key] = trial.suggest_int(
                    *(key, each.low, each.high), step=each.step, log=each.log
                )
            case FloatDistribution():
                values[key] = trial.suggest_float(
                    *(key, each.low, each.high), step=each.step, log=each.log
                )
    return values


def described(distribution: BaseDistribution) -> str:
    """What is tried for a key, in words: `0.0003 to 0.01, log`, or `64, 128, 256`."""
    match distribution:
        case CategoricalDistribution():
            return ", ".join(params.format_value(each) for each in distribution.choices)
        case IntDistribution() | FloatDistribution():
            how = ", log" if distribution.log else ""
            step = distribution.step or 0
            if step and not (isinstance(distribution, IntDistribution) and step == 1):
                how = f" in steps of {step:g}"
            return f"{distribution.low:g} to {distribution.high:g}{how}"
    return str(distribution)


def rounded(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as people write them, in their ranges.

    They have DIGITS significant digits, and more where these would change a value too much: between
    0.999 and 0.9999, three digits would leave two values.
    """
    found = dict(values)
    for key, each in space.items():
        if isinstance(each, FloatDistribution):
            value = values[key]
            most = (each.step or each.high - each.low) / PARTS / 2
            lengths = (float(f"{value:.{digits}g}") for digits in range(DIGITS, 18))
            short = next((one for one in lengths if abs(one - value) <= most), value)
            found[key] = min(max(short, each.low), each.high)
    return found


def read(path: Path, recipe: Path, changes: Mapping[str, object]) -> Space:
    """Read a space and check it against the types and ranges of a recipe's parameters.

    `changes` replaces values of the recipe. A key has either a list of values or a range: `low` and
    `high`, both included, and `log: true` or a `step`. Raises UserError with the file and the key,
    also for a key that `changes` has.
    """
    tree = strict_yaml.read(path)
    if not isinstance(tree, dict) or not tree:
        raise UserError(f"{path}: must have keys of params.yaml, such as train.learning_rate")
    whole = params.flatten(params.load(recipe, changes).model_dump())
    distributions: dict[str, BaseDistribution] = {}
    for key, given in tree.items():
        if key not in whole:
            try:
                params.load(recipe, {str(key): given})  # which says what is wrong with the key
            except params.Mistake as error:
                raise UserError(f"{path}: {error.said}") from None
            raise UserError(f"{path}: {key} is a section; name a key in it")
        if key in changes:
            raise UserError(f"-S {key}: {path} tries this key; take it out there, or leave -S out")
        where = f"{path}: {key}"
        section, _, name = key.partition(".")
        if section in UNTRIED and name not in UNTRIED[section]:
            raise UserError(
                f"{where} cannot be tried: it changes no training, or it changes the images by "
                "which trials are compared"
            )
        if isinstance(given, list):
            distributions[key] = _choices(given, where)
            tried = given
        else:
            distributions[key] = _range(given, whole[key], where)
            tried = [given["low"], given["high"]]
        for value in tried:
            try:
                params.load(recipe, {**changes, key: value})
            except params.Mistake as error:
                raise UserError(f"{where}: {error.said}") from None
    return distributions


def _choices(given: list[Any], where: str) -> CategoricalDistribution:
    if not given or any(isinstance(value, list | dict) for value in given):
        raise UserError(f"{where}: a list must have values to choose from")
    if len({repr(value) for value in given}) < len(given):
        raise UserError(f"{where}: a value is there twice")
    return CategoricalDistribution(given)


def _range(given: object, value: object, where: str) -> BaseDistribution:
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys() <= RANGE:
        raise UserError(
            f"{where} must be a list of values, or have low and high, and log: true or a step"
        )
    low, high, step = given["low"], given["high"], given.get("step")
    numbers = [low, high] if step is None else [low, high, step]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise UserError(f"{where}: low, high and step must be numbers")
    is_log = given.get("log", False)
    if not isinstance(is_log, bool):
        raise UserError(f"{where}: log must be true or false")
    is_whole = all(isinstance(each, int) for each in numbers) and not isinstance(value, float)
    try:
        if is_whole:
            return IntDistribution(low, high, is_log, 1 if step is None else step)
        return FloatDistribution(low, high, is_log, step)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
