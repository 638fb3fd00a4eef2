import subprocess
from pathlib import Path

import pytest

from mnist_lstm import UserError
from mnist_lstm.pipeline.provenance import Origin, observe, versions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/code.py", "params.yaml", "dvc.lock", "results/curve.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode()


def test_the_origin_is_user_host_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann\x1b[1m")
    monkeypatch.setattr("platform.node", lambda: "laptop")
    (tmp_path / "here").symlink_to(tmp_path)
    assert Origin.here(tmp_path / "here") == Origin("ann?[1m", "laptop", str(tmp_path.resolve()))


def test_params_and_results_do_not_make_code_dirty(repository: Path) -> None:
    for name in ("params.yaml", "dvc.lock", "results/curve.csv"):
        (repository / name).write_text("second\n")
    found = observe(repository)
    assert found.patch == b""
    assert found.commit == git(repository, "rev-parse", "HEAD").strip()


def test_the_patch_makes_the_code_that_ran(repository: Path) -> None:
    (repository / "src" / "code.py").write_text("second\n")
    (repository / "src" / "new.py").write_text("new\n")
    git(repository, "add", "src/code.py")  # staged or not, it is not the commit's
    patch = observe(repository).patch
    (repository / "src" / "new.py").unlink()
    git(repository, "reset", "-q", "--hard")
    (repository / "code.patch").write_bytes(patch)
    git(repository, "apply", "code.patch")
    assert (repository / "src" / "code.py").read_text() == "second\n"
    assert (repository / "src" / "new.py").read_text() == "new\n"


def test_a_commit_that_git_refuses_to_read_is_not_taken_for_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its tests
    with pytest.raises(UserError, match="dubious ownership"):
        observe(repository)


def test_outside_of_git_and_before_a_commit_there_is_none(tmp_path: Path) -> None:
    assert observe(tmp_path).commit is None
    git(tmp_path, "init", "-q")
    assert observe(tmp_path).commit is None


def test_the_experiment_is_what_dvc_says(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert observe(repository).dvc_experiment is None
    monkeypatch.setenv("DVC_EXP_NAME", "wide-oak")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")
    found = observe(repository)
    assert (found.dvc_experiment, found.dvc_baseline) == ("wide-oak", "abc")


def test_versions() -> None:
    assert set(versions("torch", "numpy")) == {"python", "torch", "numpy"}
