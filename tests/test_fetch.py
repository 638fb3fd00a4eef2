"""The fetch stage, run as DVC runs it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_lstm.data import mirrors
from mnist_lstm.data.datasets import CLASSES, DATASETS, FILES, TRAIN_IMAGES
from mnist_lstm.pipeline import params

ROOT = Path(__file__).parents[1]
QUICK = ROOT / "recipes" / "quick.yaml"
DVC = """
stages:
  fetch:
    deps: [data/own]
    params: [fetch]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder like the project's; torchvision's only mirror is a missing folder."""
    folder = tmp_path / "project"
    fake = folder / "fake" / "torchvision"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "datasets.py").write_text("class MNIST:\n    mirrors = ['/nowhere/mnist']\n")
    (folder / "dvc.yaml").write_text(DVC)
    return folder


def run(project: Path, mirror: str, dataset: str = "mnist") -> subprocess.CompletedProcess[str]:
    recipe = QUICK.read_text().replace("dataset: digits ", f"dataset: {dataset} ")
    (project / "params.yaml").write_text(recipe)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MNIST_MIRROR", "DVC_ROOT")
    }
    environment["PYTHONPATH"] = str(project / "fake")
    environment["MNIST_MIRROR"] = mirror
    stage = [str(ROOT / "src" / "fetch.py"), "data/own", "data/raw"]
    command = [sys.executable, "-W", "error", *stage]
    return subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_digits_need_no_mirror(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    fetch = runpy.run_path(str(ROOT / "src" / "fetch.py"))["fetch"]
    fetch(params.load(QUICK), Path("data/own"), Path("data/raw"))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "digits: 1,437 training and 360 test images, into data/raw"
    assert sorted(line.split()[0] for line in lines) == sorted(FILES)
    assert names(project / "data" / "raw") == sorted([*FILES, CLASSES])
    assert (project / "data" / "raw" / CLASSES).read_text().split() == list("0123456789")


def test_digits_are_fetched_without_imports_that_take_seconds(project):
    """scikit-learn has the images, and takes two seconds to import, like torch."""
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        f"fetch = runpy.run_path({str(ROOT / 'src' / 'fetch.py')!r})['fetch']\n"
        "from pathlib import Path; from mnist_lstm.pipeline import params\n"
        f"fetch(params.load(Path({str(QUICK)!r})), Path('own'), Path('raw'))\n"
        "assert not {'pandas', 'scipy', 'sklearn', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=project, check=True)
    assert names(project / "raw") == sorted([*FILES, CLASSES])


def test_a_relative_mirror_is_in_the_project_and_wrong_files_are_one_line(project):
    mirror = project.parent / "wrong"
    mirror.mkdir()
    for name, file in DATASETS["mnist"].files.items():
        with (mirror / name).open("wb") as wrong:
            wrong.truncate(file.size)
    result = run(project, "../wrong")
    assert result.returncode == 1
    [error] = result.stderr.splitlines()
    assert error.startswith(
        "fetch: mnist: no mirror has a correct copy of t10k-labels-idx1-ubyte.gz, "
    )
    assert f"{mirror}: t10k-labels-idx1-ubyte.gz: SHA-256 is " in error
    assert "; /nowhere/mnist: no such folder. Offline, set MNIST_MIRROR to " in error
    assert names(project / "data" / "raw") == []


def test_files_of_another_data_set_are_refused(project):
    mirror = project.parent / "fashion"
    mirror.mkdir()
    for name in FILES:
        (mirror / name).write_bytes(b"those of MNIST")
    fake = project / "fake" / "torchvision" / "datasets.py"
    fake.write_text("class FashionMNIST:\n    mirrors = ['/nowhere/fashion']\n")
    result = run(project, str(mirror), "fashion-mnist")
    assert result.returncode == 1
    [error] = result.stderr.splitlines()
    assert error.startswith(
        "fetch: fashion-mnist: no mirror has a correct copy of t10k-labels-idx1-ubyte.gz, "
    )
    assert f"{mirror}: t10k-labels-idx1-ubyte.gz: MD5 is " in error
    assert "; /nowhere/fashion: no such folder. Offline, " in error
    assert names(project / "data" / "raw") == []


def test_own_files_are_checked_before_any_are_written(project):
    result = run(project, "", "own")
    assert result.returncode == 1
    assert result.stderr.startswith("fetch: data/own/classes.txt: no such file; write the name ")
    assert not (project / "data" / "raw").exists()


@pytest.mark.skipif("MNIST_MIRROR" not in os.environ, reason="MNIST_MIRROR is not set")
def test_mnist_comes_from_the_mirror_that_is_set(project):
    mirror = next(mirrors.mirror_list(DATASETS["mnist"], os.environ["MNIST_MIRROR"], ROOT))
    result = run(project, mirror)
    assert (result.returncode, result.stderr) == (0, "")
    title, *lines = result.stdout.splitlines()
    assert title == "mnist: 60,000 training and 10,000 test images, into data/raw"
    assert lines[-1] == f"{TRAIN_IMAGES}    9,912.4 kB  from {mirror}"
    assert names(project / "data" / "raw") == sorted([*FILES, CLASSES])
    assert (project / "data" / "raw" / CLASSES).read_text().split() == list("0123456789")
