"""The parameters of a run. tests/pipeline/test_reproduce.py runs a real temporary worktree."""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from samples import FINISHED

from mnist_lstm import cli, git
from mnist_lstm.pipeline import strict_yaml
from mnist_lstm.runs import resolve
from mnist_lstm.runs.reproduction import RunResults
from mnist_lstm.runs.worktree import Scratch, params

THERE = {
    "seed": 1,
    "fetch": {"dataset": "mnist", "later": 1},
    "model": {"hidden_size": 256, "gone": 1},
    "train": {"steps": 2000, "device": "auto"},
    "evaluate": {"batch_size": 1000},
    "promote": {"margin": 0.1},
}
RECORD = replace(
    FINISHED,
    device="cpu AVX2",
    params={
        "seed": 0,
        "fetch": {"dataset": "digits"},
        "model": {"hidden_size": 64},
        "train": {"steps": 20, "device": "auto"},
    },
)


def test_the_runs_values_come_before_the_commits() -> None:
    assert params(THERE, RECORD, {"evaluate.batch_size": 7}) == {
        "seed": 0,
        "fetch": {"dataset": "digits", "later": 1},
        "model": {"hidden_size": 64},
        "train": {"steps": 20, "device": "cpu"},
        "evaluate": {"batch_size": 7},
        "promote": {"margin": 0.1},
    }


def test_a_device_is_only_changed_where_auto_may_choose_another() -> None:
    on_gpu = replace(RECORD, device="cuda NVIDIA H100")
    assert params(THERE, on_gpu, {})["train"]["device"] == "auto"


def test_a_commit_without_parameters_gets_the_runs() -> None:
    assert params({}, RECORD, {"evaluate.batch_size": 7})["evaluate"] == {"batch_size": 7}


def test_numbers_of_the_commit_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """For PyYAML alone, 1e-05 is a text."""
    git.git(tmp_path, "init", "--quiet")
    project = tmp_path / "folder" / "code"
    project.mkdir(parents=True)
    (project / "params.yaml").write_text("promote:\n  margin: 1e-05\n")
    Scratch(tmp_path, project.parent, StringIO()).restore_params(RECORD, {})
    restored = strict_yaml.read(project / "params.yaml")
    assert isinstance(restored, dict)
    assert restored["promote"] == {"margin": 0.00001}


RAW = "data/raw/classes.txt"


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([RAW], True),
        ([RAW, "../../outside"], False),
        ([RAW, "{tmp_path}/outside"], False),
        ([RAW, "data/raw/../../src/train.py"], False),
        ([RAW, "data/raw/.hidden"], False),
    ],
)
def test_data_are_restored_below_data_raw_only(
    tmp_path: Path, paths: Sequence[str], found: bool
) -> None:
    root, project = tmp_path / "root", tmp_path / "folder" / "code"
    root.mkdir()
    git.git(root, "init", "--quiet")
    Repo.init(str(root)).close()
    content = b"zero"
    md5 = hashlib.md5(content).hexdigest()
    with Repo(str(root)) as repo:
        cached = Path(repo.cache.local.oid_to_path(md5))
    entry = {
        "cmd": "python src/fetch.py data/own data/raw",
        "params": {"params.yaml": {"fetch": {"dataset": RECORD.dataset}}},
        "outs": [{"path": path.format(tmp_path=tmp_path), "md5": md5} for path in paths],
    }
    for path, written in {
        cached: content,
        root / ".dvc/cache/runs/ab/abc/1": yaml.safe_dump(entry).encode(),
    }.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(written)
    with (tmp_path / "lock").open("w") as lock:
        assert Scratch(root, project.parent, lock).restore_data(RECORD) is found
    there = [path for path in project.parent.rglob("*") if path.is_file()]
    assert there == [project / RAW] * found
    assert not (tmp_path / "outside").exists()


EVIL = """diff --git a/src/evil.py b/src/evil.py
new file mode 100644
--- /dev/null
+++ b/src/evil.py
@@ -0,0 +1,2 @@
+print("\x1b[2J evil")
+print("\udcff")
diff --git "a/src/\\033[2J\\377.py" "b/src/\\033[2J\\377.py"
new file mode 100644
--- /dev/null
+++ "b/src/\\033[2J\\377.py"
@@ -0,0 +1 @@
+1
"""
Reproduce = Callable[..., tuple[int, str]]


@pytest.fixture
def reproduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Reproduce:
    """Make a run with a patch again; returns its exit code, 3 where the patch ran, and stderr.

    The project is in a folder of the repository, and `typed` is what is typed at a terminal.
    """
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "dvc.yaml").touch()
    for arguments in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "one"),
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.chdir(project)
    monkeypatch.setattr(Scratch, "restore_data", lambda *_: False)

    def ran(place: Scratch, *_: object, **__: object) -> tuple[int, Sequence[str]]:
        assert (place.folder / "code" / "src" / "evil.py").is_file()
        return 1, ["no pipeline here"]

    monkeypatch.setattr(Scratch, "run", ran)

    def call(
        *options: str,
        typed: str = "",
        from_store: bool = True,
        commit: str | None = None,
        patch: str = EVIL,
    ) -> tuple[int, str]:
        commit = commit or git.head(project)
        record = replace(FINISHED, name="drawn\x1b[2J", commit=commit, patch=patch)
        then = RunResults(record, from_store=from_store)
        monkeypatch.setattr("mnist_lstm.commands.reproduce.read_history", lambda *_: None)
        monkeypatch.setattr(resolve, "find_results", lambda *_: then)
        for stream in (stdin := StringIO(typed), sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: bool(typed), raising=False)
        monkeypatch.setattr(sys, "stdin", stdin)
        code = cli.main(["reproduce", "drawn", *options])
        return code, capsys.readouterr().err

    return call


def test_a_patch_that_the_store_alone_has_is_not_run_unasked(reproduce: Reproduce) -> None:
    code, said = reproduce()
    assert code == 2
    # the whole patch, though the project is in another folder
    assert "\n2\t0\tsrc/evil.py\n" in said
    assert "\n create mode 100644 src/evil.py\n" in said
    assert "or with --trust-patch" in said


def test_it_is_run_where_somebody_agrees(reproduce: Reproduce) -> None:
    assert reproduce("--trust-patch")[0] == 3
    assert reproduce(typed="yes\n")[0] == 3
    for answer in ("no\n", "\n", "yep\n"):
        assert reproduce(typed=answer)[0] == 2


def test_what_it_changes_is_shown_and_the_terminal_does_not_obey_it(reproduce: Reproduce) -> None:
    said = reproduce()[1]
    assert said.startswith("drawn\\x1b[2J is in MLflow alone, with a patch: ")
    assert "\n create mode 100644 src/\\x1b[2J\\udcff.py\n" in said
    assert "\x1b" not in said


def test_it_can_be_read_first_and_the_terminal_does_not_obey_it(reproduce: Reproduce) -> None:
    code, said = reproduce(typed="diff\nno\n")
    assert code == 2
    assert '+print("\\x1b[2J evil")\n+print("\\udcff")\n' in said


def test_a_run_of_the_own_results_is_made_again_unasked(reproduce: Reproduce) -> None:
    assert reproduce(from_store=False) == (3, "")


@pytest.fixture
def foreign() -> dict[str, str]:
    """A run of a commit that no branch has, as `git fetch REMOTE <commit>` gets one."""
    top = Path.cwd().parent
    before = str(git.head(top))
    (top / "src").mkdir()
    (top / "src" / "evil.py").write_text("print('\x1b[2J')\n")
    git.git(top, "add", "src")
    tree = git.git(top, "write-tree").decode().strip()
    git.git(top, "reset", "--quiet", "--hard", before)
    by = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    commit = git.git(top, *by, "commit-tree", tree, "-p", before, "-m", "evil").decode().strip()
    return {"commit": commit, "patch": ""}


def test_a_commit_of_no_branch_that_the_store_alone_names_is_not_run_unasked(
    reproduce: Reproduce, foreign: dict[str, str]
) -> None:
    code, said = reproduce(**foreign)
    assert code == 2
    assert " is in MLflow alone, with a commit that no branch here has: " in said
    assert "\n1\t0\tsrc/evil.py\n" in said
    assert f"read it first: `git diff HEAD {foreign['commit']}`" in said
    assert reproduce(**foreign, typed="no\n")[0] == 2
    assert "+print('\\x1b[2J')\n" in reproduce(**foreign, typed="diff\nno\n")[1]
    for agreed in (
        reproduce("--trust-patch", **foreign),
        reproduce(**foreign, typed="y\n"),
        reproduce(**foreign, from_store=False),
    ):
        assert agreed[0] == 3


def test_a_commit_of_a_branch_or_of_head_is_known(
    reproduce: Reproduce, foreign: dict[str, str]
) -> None:
    git.git(Path(), "branch", "reviewed", foreign["commit"])
    assert reproduce(**foreign) == (3, "")
    git.git(Path(), "checkout", "--quiet", "--detach", foreign["commit"])
    git.git(Path(), "branch", "--quiet", "-D", "reviewed")
    assert reproduce(**foreign) == (3, "")


def test_only_a_full_hash_names_a_commit(reproduce: Reproduce) -> None:
    head = str(git.head(Path()))
    for commit in ("HEAD", head[:12], "-x", f"{head}^{{commit}}", "a" * 41):
        code, said = reproduce("--trust-patch", commit=commit, patch="")
        assert code == 2
        assert f"was made from commit '{commit}', which is no full hash" in said


def test_nothing_is_kept_without_an_outcome(
    reproduce: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for options in ({"patch": "no patch"}, {"typed": "no\n"}, {"commit": "a" * 40, "patch": ""}):
        assert reproduce("--keep", **options)[0] == 2
        assert not list(tmp_path.glob("mnist-lstm-reproduce-*"))
        assert git.git(Path(), "worktree", "list").count(b"\n") == 1


def test_what_is_kept_can_be_found_and_removed(
    reproduce: Reproduce, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scratch, "run", interrupted)
    code, said = reproduce("--keep", from_store=False)
    assert code == 130
    found = re.fullmatch(r"mnist-lstm reproduce: stopped; kept: (.*) \(`(.*)` removes it\)\n", said)
    assert found
    project, command = Path(found[1]), found[2]
    assert project.name == "project"
    assert (project.parent / "src" / "evil.py").is_file()
    subprocess.run(command, shell=True, check=True)
    assert not project.parent.parent.exists()
    assert reproduce(from_store=False) == (
        130,
        "mnist-lstm reproduce: stopped; the temporary worktree is gone, and nothing here has "
        "changed\n",
    )
