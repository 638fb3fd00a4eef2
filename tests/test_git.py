"""The project's calls of git do not depend on the user's settings."""

import os
import subprocess
from pathlib import Path

import pytest

from mnist_lstm.git import GitError, blobs, file_names, git, has_commit, head, is_repository, patch


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "code.py").write_text("first\n")
    (folder / "src" / "link").symlink_to("code.py")
    (folder / ".gitignore").write_text("*.pyc\n")
    run(folder, "init", "--quiet")
    run(folder, "config", "user.name", "A. Tester")
    run(folder, "config", "user.email", "tester@example.org")
    run(folder, "add", "--all")
    run(folder, "commit", "--quiet", "--message", "first")
    return folder


def apply(repository: Path, changes: bytes, at: Path) -> Path:
    """A fresh checkout of HEAD, with a patch on it."""
    run(repository, "worktree", "add", "--quiet", "--detach", str(at), "HEAD")
    subprocess.run(["git", "apply"], cwd=at, input=changes, check=True)
    return at


def test_committed_code_has_no_patch(repository: Path) -> None:
    (repository / "notes").write_text("no code\n")
    os.utime(repository / "src" / "code.py", (1, 1))
    assert patch(repository, ["src"]) == b""


def test_a_patch_has_every_kind_of_change(repository: Path, tmp_path: Path) -> None:
    source = repository / "src"
    (source / "code.py").unlink()
    (source / "code.py").mkdir()  # a folder where a file was
    contents = {
        "code.py/inner.py": b"inner\n",
        "crlf.py": b"one\r\ntwo\r\n",
        "latin.py": b"# caf\xe9\n",
        "binary": bytes(range(256)),
        "no end": b"no newline",
        "na\u00efve.py": b"name\n",
    }
    for name, content in contents.items():
        (source / name).write_bytes(content)
    (source / "link").unlink()
    (source / "folder").symlink_to("..")
    (source / "ignored.pyc").write_bytes(b"ignored")
    before = run(repository, "status", "--porcelain"), run(repository, "count-objects")
    there = apply(repository, patch(repository, ["src"]), tmp_path / "there") / "src"
    for name, content in contents.items():
        assert (there / name).read_bytes() == content, name
    assert not (there / "link").is_symlink()
    assert (there / "folder").readlink() == Path("..")
    assert not (there / "ignored.pyc").exists()
    assert (run(repository, "status", "--porcelain"), run(repository, "count-objects")) == before


@pytest.mark.parametrize("staged", [True, False])
def test_staged_and_unstaged_changes_give_the_same_patch(repository: Path, *, staged: bool) -> None:
    (repository / "src" / "code.py").write_text("second\n")
    (repository / "src" / "new.py").write_text("new\n")
    if staged:
        run(repository, "add", "--all")
    changes = patch(repository, ["src"])
    assert b"+second\n" in changes
    assert b"+new\n" in changes


def test_before_the_first_commit_all_code_is_a_change(tmp_path: Path) -> None:
    run(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("first\n")
    assert head(tmp_path) is None
    assert b"+first\n" in patch(tmp_path, ["code.py"])


@pytest.mark.parametrize(
    "setting",
    [
        "diff.external=true",
        "color.ui=always",
        "color.diff=always",
        "diff.noprefix=true",
        "diff.mnemonicPrefix=true",
        "diff.srcPrefix=old/",
        "diff.relative=true",
        "diff.renames=copies",
        "diff.context=0",
        "core.quotePath=false",
        "core.abbrev=5",
        "diff.code.textconv=rev",
        "diff.code.command=true",
    ],
)
def test_no_setting_changes_a_patch(
    repository: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    (repository / "src" / "code.py").write_text("second\n")
    (repository / "src" / "na\u00efve.py").write_text("first\n")
    (repository / ".git" / "info" / "attributes").write_text("*.py diff=code\n")
    before = patch(repository, ["src"])
    assert b"+second" in before
    key, _, value = setting.partition("=")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", key)
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", value)
    assert run(repository, "config", key) == value
    assert patch(repository, ["src"]) == before


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GIT_EXTERNAL_DIFF", "true"),
        ("GIT_DIFF_OPTS", "--unified=0"),
        ("GIT_DIR", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere"),
        ("GIT_LITERAL_PATHSPECS", "1"),
    ],
)
def test_no_variable_changes_a_patch(
    repository: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    (repository / "src" / "code.py").write_text("second\n")
    before = patch(repository, ["src"])
    monkeypatch.setenv(variable, value)
    assert patch(repository, ["src"]) == before != b""


def test_hooks_do_not_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_CONFIG_COUNT")  # with which no hook runs in the tests
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(repository, "worktree", "add", "--quiet", "--detach", str(tmp_path / "there"), "HEAD")
    assert not (tmp_path / "ran").exists()


def test_a_project_below_the_top_of_its_repository(repository: Path, tmp_path: Path) -> None:
    project = repository / "below"
    (project / "src").mkdir(parents=True)
    (project / "src" / "new.py").write_text("new\n")
    assert file_names(project, "--others", paths=["src"]) == ["src/new.py"]
    there = apply(repository, patch(project, ["src"]), tmp_path / "there")
    assert (there / "below" / "src" / "new.py").read_text() == "new\n"
    assert not (there / "src" / "new.py").exists()


@pytest.mark.parametrize("name", ["a:b", "sp ace \u00e9", '"quote"', "back\\slash", "line\nline"])
def test_a_project_in_a_folder_of_any_name(repository: Path, name: str) -> None:
    there = repository.rename(repository.with_name(name))
    (there / "src" / "code.py").write_text("second\n")
    assert b"-first\n+second\n" in patch(there, ["src"])


def test_a_file_with_a_conflict_is_listed_once(repository: Path) -> None:
    """Also by a git before 2.31, which has no option for that."""
    for branch in ("ours", "theirs"):
        run(repository, "checkout", "--quiet", "-b", branch, "HEAD")
        (repository / "src" / "code.py").write_text(branch)
        run(repository, "commit", "--quiet", "--all", "--message", branch)
        run(repository, "checkout", "--quiet", "HEAD~1")
    run(repository, "checkout", "--quiet", "ours")
    assert subprocess.run(
        ["git", "merge", "theirs"], cwd=repository, capture_output=True
    ).returncode
    listed = file_names(repository, "--cached", "--others", paths=["src"])
    assert listed == ["src/code.py", "src/link"]


def test_contents_of_commits(repository: Path) -> None:
    names = ["HEAD:./src/code.py", "HEAD:./src", "HEAD:./gone", "gone:./a b", "HEAD:./src/code.py"]
    assert blobs(repository, names) == [b"first\n", None, None, None, b"first\n"]
    assert has_commit(repository, "HEAD")
    assert not has_commit(repository, "c" * 40)


def test_a_folder_outside_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_repository(tmp_path)
    run(tmp_path, "init", "--quiet")
    assert is_repository(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not is_repository(tmp_path)
    with pytest.raises(GitError, match="git is not installed"):
        git(tmp_path, "rev-parse")


def test_gits_own_reason_is_in_the_message(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GitError, match=r"git apply: error: .*patch"):
        git(repository, "apply", input=b"no patch")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    for ask in (is_repository, head):
        with pytest.raises(GitError, match=r"rev-parse: fatal: .*dubious ownership"):
            ask(repository)
