"""DVC's own error messages: the last part of docs/errors.md."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing

import pytest
import zygote
from bad_params import EXECUTES, put
from samples import catalogue, is_the_line
from workspace import Workspace
from zc.lockfile import LockFile


def without(old: str, new: str, *repro: str) -> Callable[[Workspace], str]:
    """The error of `dvc repro` after a change of params.yaml."""

    def provoke(clone: Workspace) -> str:
        path = clone.folder / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return clone.refused("repro", *repro)

    return provoke


def outside(clone: Workspace) -> str:
    command = [zygote.folder_of_programs() / "dvc", "repro"]
    done = subprocess.run(command, cwd=os.sep, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr


def with_rwlock(content: Callable[[Workspace], str]) -> Callable[[Workspace], str]:
    """The error of `dvc repro fetch` with this file, in which DVC notes which process uses what."""

    def provoke(clone: Workspace) -> str:
        (clone.folder / ".dvc" / "tmp").mkdir()
        (clone.folder / ".dvc" / "tmp" / "rwlock").write_text(content(clone))
        return clone.refused("repro", "fetch")

    return provoke


def held(clone: Workspace) -> str:
    """The file is in use by a process that is alive: this one."""
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    return json.dumps({"write": {str(clone.folder / "data/raw/classes.txt"): holder}})


def with_lock(clone: Workspace) -> str:
    """What `dvc repro` says while another process, this one, has DVC's lock."""
    (clone.folder / ".dvc" / "tmp").mkdir()
    with closing(LockFile(str(clone.folder / ".dvc" / "tmp" / "lock"))):
        return clone.refused("repro")


def without_a_name(clone: Workspace) -> str:
    """What DVC says to a user without a name."""
    script = clone.folder.with_name("nobody.py")
    script.write_text("""
import pwd
from dvc.cli import main
def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = nobody
main(["status"])
""")
    named_by = ("LOGNAME", "USER", "LNAME", "USERNAME")
    kept = {key: value for key, value in os.environ.items() if key not in named_by}
    command = [zygote.folder_of_programs() / "python", script]
    return subprocess.run(
        command, cwd=clone.folder, env=kept, capture_output=True, text=True
    ).stderr


MET = {
    "ERROR: unable to read: 'params.yaml', YAML file structure is corrupted: <reason>": without(
        "seed: 0", "seed: ["
    ),
    "ERROR: failed to reproduce '<stage>': Parameters '<keys>' are missing from 'params.yaml'.": (
        without("fetch:", "fetsh:", "fetch")
    ),
    "ERROR: failed to reproduce '<stage>': [Errno 2] No such file or directory: '<file>'": (
        lambda clone: clone.refused("repro", "--single-item", "preprocess")
    ),
    "ERROR: you are not inside of a DVC repository (checked up to mount point '<folder>')": outside,
    "ERROR: failed to reproduce '<stage>': failed to run: <command>, exited with 1": without(
        "batch_size: 32", "batch_size: 0", "fetch"
    ),
    "ERROR: failed to reproduce '<stage>': Unable to read RWLock-file '.dvc/tmp/rwlock'. JSON "
    "structure is corrupted: <reason>": with_rwlock(lambda _: '{"write": '),
    "ERROR: failed to reproduce '<stage>': '<file>' is busy, it is being blocked by:": (
        with_rwlock(held)
    ),
    "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated "
    "abruptly. Check the page <address> for other possible reasons and to learn how to resolve "
    "this.": with_lock,
    "ERROR: unexpected error - 'getpwuid(): uid not found: <number>'": without_a_name,
}


@pytest.mark.parametrize("line", MET, ids=lambda line: line[:70])
def test_the_message_is_the_documented_one(clone: Workspace, line: str) -> None:
    met = MET[line](clone)
    assert any(is_the_line(line, one) for one in met.splitlines()), met


def test_errors_md_has_exactly_these_messages() -> None:
    assert catalogue()["Messages of DVC"] == list(MET)


@pytest.mark.parametrize("tag", EXECUTES)
def test_dvc_executes_no_tag_either(clone: Workspace, tag: str) -> None:
    (clone.folder / "params.yaml").write_text(put("train.steps", tag.format(it="executed")))
    clone.refused("repro")
    assert clone.git("status", "--short") == " M params.yaml\n"
