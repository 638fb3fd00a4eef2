"""GitHub's workflows: what they run works here, and runs nothing that a stranger wrote."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
import zygote
from samples import PROJECT
from workspace import Workspace

FOLDER = PROJECT / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.iterdir())}
SCRIPTS = ("pull_request.sh", "train_recipe.sh", "check_remote.py")
# the first versions that run on Node 24: GitHub's machines no longer have Node 20
ON_NODE_24 = {"checkout": 5, "setup-python": 6, "upload-artifact": 6}
SMALL = {"steps: 1500": "steps: 20", "hidden_size: 64": "hidden_size: 32"}


def steps_of(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_scripts_of_the_project_with_no_more_rights_than_it_needs(
    name: str,
) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"]["contents"] == ("write" if name == "train.yml" else "read")
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 350
    for step in steps_of(workflow):
        assert step.get("uses", "actions/").startswith("actions/")  # GitHub's own
        # an expression in a script would run what a title or a branch's name has in it
        assert "${{" not in step.get("run", "")
        # GitHub's own shell takes the exit code of what is after the pipe
        assert step.get("shell") == "bash" or " | " not in step.get("run", "")
        for script in re.findall(r"(?:scripts|\.ci)/[\w.]+", step.get("run", "")):
            assert (PROJECT / script).is_file(), script


def test_workflows_use_what_github_still_runs() -> None:
    used = {
        step["uses"] for each in WORKFLOWS.values() for step in steps_of(each) if "uses" in step
    }
    versions = dict(use.removeprefix("actions/").split("@v") for use in used)
    assert len(versions) == len(used), f"two versions of one action: {used}"
    assert versions.keys() == ON_NODE_24.keys()
    assert all(int(versions[name]) >= first for name, first in ON_NODE_24.items())
    assert "macos-14" not in str(WORKFLOWS)  # ended on 2 November 2026


@pytest.mark.parametrize("name", WORKFLOWS)
def test_only_the_steps_that_need_them_have_the_secrets(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert not any(
        "secrets." in str(job.get("env")) for job in [workflow, *workflow["jobs"].values()]
    )
    for step in steps_of(workflow):
        runs_dvc = any(script in step.get("run", "") for script in SCRIPTS)
        assert ("secrets." in str(step)) == runs_dvc
        if step.get("uses", "").startswith("actions/checkout@"):
            kept = step.get("with", {}).get("persist-credentials", True)
            assert kept == (name == "train.yml")  # which pushes


def test_workflows_run_each_script_that_is_for_them() -> None:
    run = "".join(step.get("run", "") for each in WORKFLOWS.values() for step in steps_of(each))
    for script in SCRIPTS:
        assert f"scripts/{script}" in run


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_that_have_its_secrets_install_what_a_remote_on_s3_needs(name: str) -> None:
    run = [step.get("run", "") for step in steps_of(WORKFLOWS[name])]
    assert ("make env TORCH=cpu EXTRAS=team" in run) == ("secrets." in str(WORKFLOWS[name]))


def script(
    workspace: Workspace, program: str, *arguments: str, **environment: str
) -> tuple[int, str, str]:
    """Run a script as a workflow does; exit code, and what it prints on stdout and stderr."""
    programs = zygote.folder_of_programs()
    done = subprocess.run(
        [program, *arguments],
        cwd=workspace.folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the baseline whose quick recipe is a small one, with a remote and an origin."""
    workspace = baseline.copy(tmp_path / "here")
    recipe = workspace.folder / "recipes" / "quick.yaml"
    text = recipe.read_text()
    for before, after in SMALL.items():
        assert before in text
        text = text.replace(before, after)
    recipe.write_text(text)
    workspace.git("init", "--quiet", "--bare", str(tmp_path / "origin"))
    workspace.git("remote", "remove", "origin") if workspace.git("remote") else None
    workspace.git("remote", "add", "origin", str(tmp_path / "origin"))
    workspace.dvc("remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    workspace.commit("a quicker recipe, a remote")
    return workspace


def test_the_remote_is_checked(here: Workspace) -> None:
    code, printed, errors = script(here, "python", "scripts/check_remote.py")
    assert code == 1
    assert "results/train/model.safetensors\n" in printed
    said = r"^\d+ files are not in the remote, or it cannot be reached from here; run `dvc push` on"
    assert re.search(said, errors, re.M)
    here.dvc("push")
    assert script(here, "python", "scripts/check_remote.py")[:2] == (
        0,
        "the remote has all files that dvc.lock names\n",
    )
    here.dvc("remote", "default", "--unset")
    assert script(here, "python", "scripts/check_remote.py")[::2] == (
        1,
        "no remote is the default: `dvc remote default NAME` makes one the default\n",
    )
    here.dvc("remote", "remove", "store")
    assert script(here, "python", "scripts/check_remote.py")[1].startswith(
        "this project has no DVC"
    )


@pytest.mark.parametrize(
    "command",
    [
        ("python", "scripts/check_remote.py"),
        ("bash", "scripts/train_recipe.sh", "recipes/quick.yaml", "results-1"),
    ],
)
def test_a_remote_that_cannot_be_used_is_a_line_before_anything_runs(
    here: Workspace, command: tuple[str, ...]
) -> None:
    # an S3 store that is not there; without the extra `team`, DVC has no code for S3
    here.dvc("remote", "modify", "store", "url", "s3://digits/dvc")
    here.dvc("remote", "modify", "store", "endpointurl", "http://127.0.0.1:9")
    keys = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "s", "AWS_MAX_ATTEMPTS": "1"}
    before = here.git("status", "--short", "--branch")
    code, printed, errors = script(here, *command, **keys)
    assert (code, printed) == (1, "")
    line = r"the DVC remote cannot be used: [^\n]+; docs/team\.md says what it needs\n"
    assert re.fullmatch(line, errors)
    assert here.git("status", "--short", "--branch") == before


def test_what_git_has_is_pushed_when_the_remote_fails_and_when_there_is_none(
    here: Workspace, tmp_path: Path
) -> None:
    # the results of params.yaml are there: nothing is trained
    train = ("bash", "scripts/train_recipe.sh", "params.yaml")
    hook = here.folder / ".git" / "hooks" / "post-checkout"  # `git switch` runs it
    hook.parent.mkdir(exist_ok=True)
    store = shlex.quote(str(tmp_path / "store"))
    hook.write_text(f"#!/bin/sh\nrm -r {store} && touch {store}\n")
    hook.chmod(0o755)
    code, _, errors = script(here, *train, "results-1", GIT_CONFIG_COUNT="0")  # with hooks
    assert code == 1
    assert "train_recipe.sh: the DVC remote lacks models of results-1, see above: run " in errors
    hook.unlink()

    here.dvc("remote", "remove", "store")
    code, printed, errors = script(here, *train, "results-2")
    assert code == 0, errors
    assert printed.startswith("The project has no DVC remote: the branch gets the tables of ")
    pushed = here.git("ls-remote", "origin")
    assert "refs/heads/results-1\n" in pushed
    assert "refs/heads/results-2\n" in pushed


@pytest.mark.soak
def test_a_change_is_reported_beside_what_was_before(here: Workspace) -> None:
    base = here.git("rev-parse", "HEAD").strip()
    recipe = here.folder / "recipes" / "quick.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 20", "steps: 30"))
    (here.folder / "docs" / "draw.md").unlink()
    here.commit("more steps")
    before = here.git("status", "--short")
    code, printed, errors = script(here, "bash", "scripts/pull_request.sh", base)
    assert code == 0, errors
    assert "| train.steps | 30 | 20 |" in printed
    assert re.search(r"\| test accuracy \| [\d.]+% \| [\d.]+% \| ", printed), printed
    assert "```mermaid" in printed
    assert here.git("status", "--short") == before
    assert not (here.folder / ".pull_request" / "docs" / "draw.md").exists()
    assert errors.count("> python src/train.py") == 2, errors

    code, _, errors = script(here, "bash", "scripts/pull_request.sh")
    assert (code, errors) == (
        2,
        "pull_request.sh: name the commit that the change is based on\n",
    )


@pytest.mark.soak
def test_a_recipe_is_trained_and_pushed(here: Workspace, tmp_path: Path) -> None:
    code, printed, errors = script(
        here, "bash", "scripts/train_recipe.sh", "recipes/quick.yaml", "results-1"
    )
    assert code == 0, errors
    assert "| steps | 20 |" in printed
    colleague = Workspace(tmp_path / "colleague")
    here.git("clone", "--quiet", "--branch", "results-1", str(tmp_path / "origin"), "../colleague")
    assert colleague.dvc("pull")
    assert "didn't change, skipping" in colleague.dvc("repro")
    assert colleague.results() == here.results()

    code, _, errors = script(here, "bash", "scripts/train_recipe.sh", "none.yaml", "x")
    assert (code, errors[:17]) == (2, "train_recipe.sh: ")
