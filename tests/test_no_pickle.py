"""No code here can unpickle. tests/pipeline/test_serving.py tests the model in MLflow."""

import ast
import itertools
from pathlib import Path

import pytest
from samples import PROJECT

# modules and functions that unpickle or execute what they read, or do so if a file requests it
UNPICKLES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle"),
    *("marshal", "shelve", "pandas.read_pickle", "numpy.load", "numpy.lib.format"),
    *("torch.load", "torch.serialization", "torch.jit", "torch.package", "torch.hub"),
    *("torch.export.load", "mlflow.pytorch.load_model", "mlflow.pyfunc.load_model"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader", "eval", "exec", "__import__"),
}
CODE = sorted(
    path for folder in ("src", "scripts", "benchmarks") for path in (PROJECT / folder).rglob("*.py")
)


def names_used(source: str) -> set[str]:
    """The full dotted names of everything that a module imports or refers to, with all parents."""
    aliases, used = dict[str, str](), set[str]()
    nodes = [*ast.walk(ast.parse(source))]
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            used |= {module + name.name for name in node.names}
            aliases |= {name.asname or name.name: module + name.name for name in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Name):
            first, dot, rest = ast.unparse(node).partition(".")
            used.add(aliases.get(first, first) + dot + rest)
    return {name for long in used for name in itertools.accumulate(long.split("."), "{}.{}".format)}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_that_unpickles_is_used(path: Path) -> None:
    assert names_used(path.read_text(encoding="utf-8")) & UNPICKLES == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load as read\nread(path)",
        "from torch.serialization import load",
        "import torch.package",
        "import yaml\nyaml.load(text, yaml.CLoader)",
        "from yaml import UnsafeLoader",
        "def f():\n    from joblib import load",
        "eval('1')",
    ],
)
def test_unpickling_code_would_be_found(source: str) -> None:
    assert names_used(source) & UNPICKLES


def test_all_code_is_checked() -> None:
    assert {"train.py", "params.py", "projection.py", "docs.py"} <= {path.name for path in CODE}
