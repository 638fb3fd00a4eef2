"""The import rule: which room of src/ may import which. Imports inside functions count too."""

import ast
import sys
from pathlib import Path

import pytest
from imports import CODE, PACKAGE, imported, names
from samples import PROJECT

# from the top: a room may import the rooms below it, and on its own level only itself
LEVELS = (
    ("cli",),
    ("commands", "serving"),
    ("runs",),
    ("tracking",),
    ("pipeline", "views", "learning"),
    ("data",),
    ("git", "dvc_cache", "files"),
)
WITHIN_A_LEVEL = {("dvc_cache", "git")}  # (room, the one beside it that it may import)
NOT_FOR_STAGES = {"cli", "commands", "serving", "runs"}
ROOMS = {room for level in LEVELS for room in level}

# Triton is part of torch for Linux, and only used with a GPU
KNOWN_OF_PACKAGES = {("learning/wavefront.py", "triton")}


def room_of(path: Path) -> str:
    """The room of a file; `stages` for a stage, `__init__` for the package's own file."""
    if path.parent == Path("src"):
        return "stages"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(room: str) -> set[str]:
    """The rooms that a room may import."""
    if room == "__init__":
        return set()
    if room == "stages":
        return {"__init__"} | ROOMS - NOT_FOR_STAGES
    (level,) = (at for at, rooms in enumerate(LEVELS) if room in rooms)
    below = {other for rooms in LEVELS[level + 1 :] for other in rooms}
    beside = {other for one, other in WITHIN_A_LEVEL if one == room}
    return {"__init__", room} | below | beside


def short(path: Path) -> str:
    return str(path.relative_to(PACKAGE if PACKAGE in path.parents else "src"))


def test_the_rooms_are_those_of_the_table() -> None:
    assert {room_of(path) for path in CODE} == ROOMS | {"stages", "__init__"}


def test_imports_go_one_way() -> None:
    broken = {
        (short(path), short(other))
        for path in CODE
        for other in imported(path)
        if room_of(other) not in allowed(room_of(path)) and other.name != "__init__.py"
    }
    assert broken == set()


@pytest.mark.parametrize(
    ("module", "below"),
    [
        ("wavefront", set()),
        ("layers", set()),
        ("model", {"files", "layers", "wavefront"}),
        ("augmentation", set()),
        ("optimizer", set()),
        ("precision", {"model", "wavefront"}),
        ("health", {"model", "sequences"}),
        ("build", {"model", "optimizer", "sequences"}),
        ("group", {"build", "checkpoint", "files", "training_state"}),
        ("corruptions", set()),
        ("fit", {"augmentation", "group", "health", "model", "optimizer", "sequences"}),
        ("fingerprint", set()),
        ("training_state", {"optimizer", "sequences"}),
        ("checkpoint", {"files", "optimizer", "sequences", "training_state"}),
        ("evaluation", {"model"}),
    ],
)
def test_imports_go_down_in_learning_too(module: str, below: set[str]) -> None:
    found = imported(PACKAGE / "learning" / f"{module}.py")
    assert {path.stem for path in found} - {"__init__"} <= below


def test_only_tracking_imports_mlflow() -> None:
    users = {short(path) for path in CODE if "mlflow" in names(path)}
    assert {name for name in users if not name.startswith("tracking/")} == set()


def test_learning_needs_torch_numpy_and_safetensors_alone() -> None:
    """`learning` and the modules of `data` that it uses run without any other package."""
    pure = [path for path in CODE if room_of(path) == "learning"]
    pure += [PACKAGE / "data" / name for name in ("idx.py", "sequences.py")]
    ours = {"mnist_lstm", "torch", "numpy", "safetensors", *sys.stdlib_module_names}
    others = {
        (short(path), name) for path in pure for name in names(path) - ours if "." not in name
    }
    assert others == KNOWN_OF_PACKAGES


def test_a_room_is_no_more_than_its_modules() -> None:
    """An `__init__` has one sentence and no code, so that a room imports only what it needs."""
    for room in ("data", "learning", "pipeline", "views", "runs", "serving"):
        (sentence,) = ast.parse((PROJECT / PACKAGE / room / "__init__.py").read_text()).body
        assert isinstance(sentence, ast.Expr)
        assert isinstance(sentence.value, ast.Constant)
    assert not imported(PACKAGE / "tracking" / "__init__.py")


@pytest.mark.parametrize(
    "path", [path for path in CODE if room_of(path) in ("learning", "data", "views")], ids=short
)
def test_nothing_prints_or_reads_params_yaml(path: Path) -> None:
    for node in ast.walk(ast.parse((PROJECT / path).read_text())):
        match node:
            case ast.Name(id="print"):
                pytest.fail(f"line {node.lineno} prints")
            case ast.Attribute(attr="write", value=ast.Attribute(attr="stdout" | "stderr")):
                pytest.fail(f"line {node.lineno} prints")
            case ast.Constant(value="params.yaml"):
                pytest.fail(f"line {node.lineno} names params.yaml")


def test_only_params_checks_values_with_pydantic() -> None:
    assert [short(path) for path in CODE if "pydantic" in names(path)] == ["pipeline/params.py"]
