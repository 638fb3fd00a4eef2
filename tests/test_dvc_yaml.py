"""dvc.yaml lists what the stages are made from: DVC does not follow imports, so a test does."""

import ast
import hashlib
from pathlib import Path

import pytest
import yaml
from samples import PROJECT

STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
PACKAGE = Path("src/mnist_lstm")


def modules(folder: str) -> list[Path]:
    """The modules of a package in the package."""
    return [path.relative_to(PROJECT) for path in (PROJECT / PACKAGE / folder).glob("*.py")]


# modules whose change must not throw results away, and why
EXEMPT = {
    **dict.fromkeys(
        (PACKAGE / "params.py", PACKAGE / "strict_yaml.py"), "its values reach DVC as params"
    ),
    PACKAGE / "stage.py": "guards a stage's work and takes no part in it",
    PACKAGE / "interruption.py": "meets signals and takes no part in the work",
    PACKAGE / "clock.py": "times a training",
    PACKAGE / "provenance.py": "records where a training ran",
    **dict.fromkeys(modules("tracking"), "shows trainings"),
    **dict.fromkeys((PACKAGE / "cli.py", *modules("commands")), "looks after trainings"),
    **dict.fromkeys((PACKAGE / "history.py", PACKAGE / "selection.py"), "finds results"),
    PACKAGE / "promotion.py": "chooses among results",
    PACKAGE / "seeds.py": "starts trainings as a user would",
    PACKAGE / "invocation.py": "checks what the served model is sent",
    **dict.fromkeys((PACKAGE / "scratch.py", PACKAGE / "verdict.py"), "makes a run again"),
    **dict.fromkeys((PACKAGE / "chosen.py", PACKAGE / "pictures.py"), "uses a trained model"),
    **dict.fromkeys(
        [
            PACKAGE / f"{name}.py"
            for name in ("comparison", "listing", "report", "table", "unfinished")
        ],
        "shows results",
    ),
}


def imported(path: Path) -> set[Path]:
    """The project's modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((PROJECT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = {PACKAGE / name.removeprefix("mnist_lstm.").replace(".", "/") for name in names}
    files = {file for at in ours for file in (at.with_suffix(".py"), at / "__init__.py")}
    if any(name.split(".")[0] == "mnist_lstm" for name in names):
        files.add(PACKAGE / "__init__.py")
    return {file for file in files if (PROJECT / file).is_file()}


def code_of(stage: str) -> set[Path]:
    """What runs when a stage does, without what only exempt modules import."""
    found, waiting = set(), {Path(f"src/{stage}.py")}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imported(module) - found - set(EXEMPT)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_runs(stage: str) -> None:
    listed = {Path(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert listed == code_of(stage)


def test_every_module_is_reached_or_exempt() -> None:
    reached = set().union(*(code_of(stage) for stage in STAGES)) | set(EXEMPT)
    there = {path.relative_to(PROJECT) for path in (PROJECT / "src").rglob("*.py")}
    assert there == reached


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("model", {"__init__", "files"}),
        ("sequences", {"__init__", "files"}),
        ("augmentation", set()),
        ("optimizer", set()),
        ("precision", {"__init__", "model"}),
        ("training", {"__init__", "augmentation", "model", "optimizer", "sequences"}),
        ("checkpoint", {"__init__", "files", "sequences"}),
    ],
)
def test_imports_go_down(module: str, allowed: set[str]) -> None:
    assert {path.stem for path in imported(PACKAGE / f"{module}.py")} <= allowed


def test_only_tracking_imports_mlflow_and_only_params_reads_params_yaml() -> None:
    for path in (PROJECT / "src").rglob("*.py"):
        text = path.read_text()
        assert ("import mlflow" not in text) or path.parent.name == "tracking", path
        assert ("BaseModel" in text) == (path.name == "params.py"), path


def test_the_lock_is_that_of_this_code() -> None:
    lock = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]
    assert lock.keys() == STAGES.keys()
    for name, stage in lock.items():
        assert stage["cmd"] == STAGES[name]["cmd"].strip()
        recorded = {dep["path"]: dep["md5"] for dep in stage["deps"]}
        assert recorded.keys() == set(STAGES[name]["deps"])
        for path in recorded:
            if path.endswith(".py"):
                content = (PROJECT / path).read_bytes()
                assert recorded[path] == hashlib.md5(content).hexdigest(), path


def test_the_committed_results_are_those_of_the_lock() -> None:
    lock = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]
    committed = [
        (out["path"], out["md5"])
        for stage in lock.values()
        for out in stage["outs"]
        if out["path"].endswith((".csv", "metrics.json")) and "timing" not in out["path"]
    ]
    assert len(committed) == 5
    for path, md5 in committed:
        assert hashlib.md5((PROJECT / path).read_bytes()).hexdigest() == md5, path
