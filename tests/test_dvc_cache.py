"""Read locks and caches from a repository that DVC itself made."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.utils.serialize import dump_yaml
from ruamel.yaml import YAML
from ruamel.yaml.cyaml import CParser

from mnist_lstm.dvc_cache import DvcCache, dataset, is_of, outs, params, stages, workspace_stages

ENTRY = {
    "cmd": "python src/train.py",
    "params": {"params.yaml": {"seed": 0}},
    "outs": [{"path": "a", "md5": "1" * 32}, {"path": "not cached"}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_a_lock_has_the_outputs_and_parameters_of_a_stage(root: Path) -> None:
    assert stages(b"", "dvc.lock") == workspace_stages(root) == {}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train": ENTRY}}))
    entry = workspace_stages(root)["train"]
    assert outs(entry) == {"a": "1" * 32}
    assert params(entry) == {"seed": 0}
    assert outs({}) == params({}) == {}


@pytest.mark.parametrize(
    "value",
    [
        *(1e-05, -1e-05, 2.5e-06, 1e16, 1e-100, 0.001, 0.0, 3.0, math.inf, 10, -1, 2**62),
        *(None, True, False, "1e-05", "1:30", "0777", "yes", "null", "2026-01-02", "=", "<<", ""),
    ],
)
def test_a_parameter_is_read_as_dvc_wrote_it(root: Path, value: object) -> None:
    """As YAML 1.2 has it: 0.00001 is 1e-05 there, without a point."""
    entry = ENTRY | {"params": {"params.yaml": {"train": {"value": value}}}}
    dump_yaml(root / "dvc.lock", {"schema": "2.0", "stages": {"train": entry}})
    read = params(workspace_stages(root)["train"])["train"]["value"]
    assert (type(read), read) == (type(value), value)


def test_a_file_is_found_by_its_md5(root: Path) -> None:
    md5 = hashlib.md5(b"content").hexdigest()
    cache = DvcCache(root)
    assert not cache.has(md5)
    assert cache.content(md5) is None
    with Repo(str(root)) as repo:
        stored = Path(repo.cache.local.oid_to_path(md5))
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"content")
    assert cache.has(md5)
    assert cache.content(md5) == b"content"
    assert is_of(md5, b"content")
    assert not is_of(md5, b"other")
    assert not is_of(md5, None)


def test_runs_are_recorded_the_latest_first(root: Path) -> None:
    cache = DvcCache(root)
    assert list(cache.recorded_runs()) == []
    folder = root / ".dvc" / "cache" / "runs" / "ab" / "abc"
    folder.mkdir(parents=True)
    for number in (1, 3, 2):
        (folder / str(number)).write_text(yaml.safe_dump({"cmd": str(number)}))
        os.utime(folder / str(number), (number, number))
    assert [entry["cmd"] for _, entry in cache.recorded_runs()] == ["3", "2", "1"]


def test_a_run_that_a_dvc_is_just_recording_does_not_count(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = DvcCache(root, said.append)
    folder = root / ".dvc" / "cache" / "runs" / "ab" / "abc"
    folder.mkdir(parents=True)
    (folder / "1").write_text(yaml.safe_dump({"cmd": "1"}))
    (folder / ".XyZ.tmp").write_text("cm")
    gone, stat = folder / "2", Path.stat
    gone.touch()

    def vanish(path: Path, **options: Any) -> os.stat_result:
        if path == gone:
            gone.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanish)
    assert [entry["cmd"] for _, entry in cache.recorded_runs()] == ["1"]
    assert said == []


def test_a_stage_without_parameters_has_none(root: Path) -> None:
    assert params({"params": {"params.yaml": None}}) == {}
    assert dataset({"params": {"params.yaml": None}}) is None


def test_dvc_reads_yaml_with_libyaml() -> None:
    """In pure Python, a `dvc` with nothing to do would spend a fifth of its time on YAML."""
    assert YAML(typ="safe").Parser is CParser
