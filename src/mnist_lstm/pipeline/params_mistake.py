"""What is wrong in a params.yaml, in words, and what was probably meant."""

import difflib
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from pydantic_core import ErrorDetails

from mnist_lstm.pipeline.strict_yaml import cut, dotted

LONGEST = 50  # characters of a text that may be a misspelt name


def explain(error: ErrorDetails, sections: Mapping[str, Sequence[str]]) -> str:
    """A mistake that pydantic found, in one line: the key, what its value must be, what it is.

    `sections` has the keys of each section; those of the file itself are below the empty name.
    """
    key = dotted(error["loc"])
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "dataset" | "combination":
            return error["msg"]
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden" | "invalid_key":
            *section, name = map(str, error["loc"])
            if not section and name in _dotted(sections):
                outer, _, inner = name.rpartition(".")
                return f"{key} must be in its section: write `{outer}:`, and below it `{inner}`"
            return f"{key} is not a known key; {_nearest(sections, '.'.join(section), name)}"
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
        case "bool_type":
            return f"{key} must be true or false, is {_described(value)}"
        case "string_type":
            return f"{key} must be text, is {_described(value)}"
        case "string_unicode":  # half of a surrogate pair, such as "\\ud800"
            return f"{key or 'a key'} must be Unicode text, is {_described(value)}"
        case "literal_error":
            hint = similar(value, re.findall(r"'([^']*)'", context["expected"]))
            return f"{key} must be {context['expected']}, is {_described(value)}{hint}"
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
    if not isinstance(value, str) or len(value) > 20:
        return ""
    if re.fullmatch(r"[-+]?\d*,\d+", value):
        return f"; write a decimal point, not a comma: {value.replace(',', '.')}"
    try:
        number = Decimal(value)
    except ArithmeticError:
        return ""
    if not number.is_finite() or abs(number.adjusted()) > 20:
        return ""
    return f"; write {number:f}"


def similar(value: object, known: Sequence[str]) -> str:
    """A hint at the known value that is most similar to a text; nothing if none is."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""  # a list of aliases may be short in the file and endless as text
    near = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _dotted(sections: Mapping[str, Sequence[str]]) -> set[str]:
    """The dotted keys, such as `train.steps`."""
    return {f"{section}.{key}" for section, keys in sections.items() for key in keys if section}


def _nearest(sections: Mapping[str, Sequence[str]], section: str, name: str) -> str:
    """Suggest the known key with the most similar name; otherwise list the keys of the section.

    Only the last parts of the keys are compared: train.lr and train.steps would otherwise be
    similar because of their section.
    """
    here = {key: f"{section}.{key}".lstrip(".") for key in sections[section]}
    anywhere = {
        key: f"{one}.{key}".lstrip(".") for one in reversed(list(sections)) for key in sections[one]
    }
    for known, cutoff in ((here, 0.5), (anywhere, 0.7)):
        if near := difflib.get_close_matches(name, known, n=1, cutoff=cutoff):
            return f"did you mean {known[near[0]]}?"
    return f"known keys here: {', '.join(sections[section])}"
