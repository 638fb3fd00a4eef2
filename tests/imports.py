"""Read from its syntax tree what a module imports, also inside functions."""

import ast
import itertools
from pathlib import Path

from samples import PROJECT

PACKAGE = Path("src/mnist_lstm")
CODE = sorted(path.relative_to(PROJECT) for path in (PROJECT / "src").rglob("*.py"))


def names(path: Path) -> set[str]:
    """The full dotted names that a file imports, each with its parents."""
    found = set[str]()
    for node in ast.walk(ast.parse((PROJECT / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: import by the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {
        name for long in found for name in itertools.accumulate(long.split("."), "{}.{}".format)
    }


def imported(path: Path) -> set[Path]:
    """The project's modules that a file imports, and the `__init__` of each package they are in."""
    ours = {Path("src", *name.split(".")) for name in names(path)}
    files = {file for at in ours for file in (at.with_suffix(".py"), at / "__init__.py")}
    return files & {*CODE}
