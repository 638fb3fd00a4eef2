"""Values of parsed JSON as typed values: the fields of a frozen dataclass, checked one by one."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mnist_lstm import UserError

Time = Annotated[str, "a time in ISO 8601"]
Bytes = Annotated[str, "the bytes of a file, with surrogateescape"]

KINDS: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Time: "a time in ISO 8601",
    Bytes: "text",
}
LARGEST = 2**53  # smaller whole numbers have an exact float
DEEPEST = 20  # levels of objects and lists
DAMAGED = "it is damaged, or of another version of this project"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def as_record(kind: Any, value: object, name: str, key: str = "") -> Any:
    """A value of JSON as `kind`: a frozen dataclass, or the type of the field `key`.

    Raises UserError with `name` as file.
    """
    try:
        return checked(value, kind, key)
    except WrongField as error:
        raise UserError(f"{name}: {error}; {DAMAGED}") from None
    except RecursionError:
        raise UserError(f"{name}: it has too many levels; {DAMAGED}") from None


class WrongField(Exception):
    """A field is missing or has another type. The message names it."""


def checked(value: object, kind: Any, key: str) -> Any:
    """Convert a value of parsed JSON to a field's type. Raises WrongField."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _plain(value, key)
    if origin is UnionType:  # of a type and None
        return None if value is None else checked(value, arguments[0], key)
    if is_dataclass(kind) or origin is Mapping:
        if not isinstance(value, dict):
            raise WrongField(f"{key or 'it'} must be an object, is {described(value)}")
        below = f"{key}." if key else ""
        if origin is Mapping:
            return {
                _text(name, f"a key of {key or 'it'}"): checked(each, arguments[1], below + name)
                for name, each in value.items()
            }
        types = get_type_hints(kind, include_extras=True)
        needed = [entry.name for entry in fields(kind) if entry.default is MISSING]
        if missing := [name for name in needed if name not in value]:
            raise WrongField(f"{below}{missing[0]} is missing")
        there = [name for name in types if name in value]
        return kind(**{name: checked(value[name], types[name], below + name) for name in there})
    if origin in (tuple, Sequence):
        if not isinstance(value, list):
            raise WrongField(f"{key} must be a list, is {described(value)}")
        if origin is Sequence:
            arguments = arguments * len(value)
        elif len(value) != len(arguments):
            raise WrongField(f"{key} must be a list of {len(arguments)}, is {described(value)}")
        return tuple(map(checked, value, arguments, [key] * len(value)))
    return _simple(value, kind, key)


def _simple(value: object, kind: Any, key: str) -> Any:
    """Check a number, a text or a truth value. Raises WrongField."""
    expected = str if kind in (Time, Bytes) else kind
    is_right = type(value) is expected or (kind is float and type(value) is int)
    if kind == Time and is_right:
        try:
            datetime.fromisoformat(str(value)).astimezone().timestamp()
        except (ValueError, OverflowError, OSError):
            is_right = False
    if not is_right:
        raise WrongField(f"{key} must be {KINDS[kind]}, is {described(value)}")
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise WrongField(f"{key} is too large, {described(value)}")
    return value if kind == Bytes or not isinstance(value, str) else _text(value, key)


def _plain(value: object, key: str, depth: int = 0) -> object:
    """Check all numbers and texts in a value of JSON. Raises WrongField."""
    if depth > DEEPEST:
        raise WrongField(f"{key} has more than {DEEPEST} levels")
    if isinstance(value, dict):
        return {
            _text(name, f"a key of {key}"): _plain(each, key, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_plain(each, key, depth + 1) for each in value]
    return value if value is None else _simple(value, type(value), key)


def _text(value: str, key: str) -> str:
    if CONTROL.search(value):
        raise WrongField(f"{key} must be text without control characters, is {described(value)}")
    return value


def described(value: object) -> str:
    """A value of JSON in a message: as JSON, and not too long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
