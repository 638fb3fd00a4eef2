"""A strict YAML reader that agrees with DVC's: no tags, no duplicate keys, one-line errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mnist_lstm import UserError, git
from mnist_lstm.dvc_cache import SCALARS


def read(path: Path) -> object:
    """Read a YAML file into plain values.

    Raises UserError with one line: the file, the line and key if they are known, what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"; `git checkout {path}` brings it back" if path.name == "params.yaml" else ""
        raise UserError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> object:
    """Parse YAML text into plain values. Raises UserError as `read` does, with `name` as file."""
    keys: list[str] = []
    try:
        loader = _Loader(text)
        keys = loader.keys
        return loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if git.has_conflict(text.encode()):
            raise UserError(f"{name}: {git.CONFLICT}") from None
        key = f"{dotted(keys)}: " if keys else ""
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
            where = f"line {mark.line + 1}, column {mark.column + 1}"
            what = ", ".join(filter(None, (error.context, error.problem)))
            raise UserError(f"{name}: {where}: {key}{what}") from None
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: {key}not readable as YAML: {reason}") from None


def dotted(keys: Sequence[object]) -> str:
    """Join keys with dots, as in `model.dropout`; unprintable characters are escaped."""
    names = map(str, keys)
    return cut(".".join(name if name and name.isprintable() else ascii(name) for name in names))


def cut(text: str) -> str:
    """Shorten a text to at most 60 characters."""
    return text if len(text) <= 60 else text[:57] + "…"


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses tags and duplicate keys.

    DVC records the values, so this loader must read the same values as DVC. PyYAML alone does not.
    """

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = SCALARS  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.keys: list[str] = []  # keys of the node being read; they stay after an error

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Read a node. If it has a key, `index` is the key's node and `parent` is a mapping."""
        has_key = isinstance(index, yaml.ScalarNode)
        if has_key:
            self.keys.append(index.value)
            if index.value in [name.value for name, _ in parent.value]:
                raise yaml.MarkedYAMLError(
                    problem="occurs twice in the section", problem_mark=index.start_mark
                )
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if tag := getattr(event, "tag", None):
            problem = f"has the YAML tag {cut(ascii(tag))}; write the value alone"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        if has_key:
            self.keys.pop()
        return node
