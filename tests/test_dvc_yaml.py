"""dvc.yaml lists every module that a stage imports. DVC does not follow imports; this test does."""

import hashlib
from pathlib import Path

import pytest
import yaml
from imports import CODE, PACKAGE, imported
from samples import PROJECT

STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]

# rooms and modules whose change must not make results invalid, and why
EXEMPT = {
    PACKAGE / "tracking": "shows trainings",
    PACKAGE / "runs": "looks after trainings",
    PACKAGE / "serving": "serves a trained model",
    **dict.fromkeys((PACKAGE / "cli.py", PACKAGE / "commands"), "looks after trainings"),
    **{
        PACKAGE / room / "__init__.py": "has no code: tests/test_layout.py"
        for room in ("data", "learning", "pipeline", "views")
    },
    **dict.fromkeys(
        [
            PACKAGE / "pipeline" / name
            for name in ("params.py", "params_mistake.py", "strict_yaml.py")
        ],
        "its values reach DVC as params",
    ),
    PACKAGE / "pipeline" / "stage.py": "guards a stage's work and takes no part in it",
    PACKAGE / "pipeline" / "signals.py": "meets signals and takes no part in the work",
    PACKAGE / "pipeline" / "launch.py": "starts processes; learning/group.py has what they do",
    PACKAGE / "pipeline" / "process.py": "sees to output, and takes no part in the work",
    PACKAGE / "pipeline" / "company.py": "decides how idle threads wait",
    PACKAGE / "pipeline" / "timing.py": "times a training",
    PACKAGE / "pipeline" / "watched.py": "shows trainings",
    PACKAGE / "pipeline" / "progress.py": "draws the progress of a training",
    PACKAGE / "pipeline" / "provenance.py": "records where a training ran",
    **dict.fromkeys((PACKAGE / "git.py", PACKAGE / "dvc_cache.py"), "reads what is recorded"),
    **{
        PACKAGE / "data" / name: "reads pictures for a trained model"
        for name in ("photo.py", "picture_file.py", "glyph.py", "ground.py")
    },
    **dict.fromkeys(
        [
            PACKAGE / "views" / f"{name}.py"
            for name in (
                *("draw_page", "html_page", "markdown_page", "model_words", "search_figure"),
                "text_table",
            )
        ],
        "shows results",
    ),
}


def exempt(path: Path) -> bool:
    return any(each in EXEMPT for each in (path, *path.parents))


def code_of(stage: str) -> set[Path]:
    """The modules that run in a stage, without those that only exempt modules import."""
    found, waiting = set(), {Path(f"src/{stage}.py")}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= {path for path in imported(module) - found if not exempt(path)}
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_code_that_runs(stage: str) -> None:
    listed = {Path(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert listed == code_of(stage)


def test_every_module_is_reached_or_exempt() -> None:
    reached = set().union(*(code_of(stage) for stage in STAGES))
    assert [path for path in CODE if path not in reached and not exempt(path)] == []
    assert not {path for path in reached if exempt(path)}
    assert all((PROJECT / path).exists() for path in EXEMPT)


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
