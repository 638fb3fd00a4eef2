"""How idle threads of PyTorch wait."""

import os
import subprocess
import sys

import psutil
import pytest

from mnist_lstm.pipeline import company

MEASURED = company._load


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, of which one and a half are at work, and no choice of the user."""
    for name in (*company.CHOSEN_BY, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    # what a test sets, monkeypatch takes back only if it knows of it
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(company, "cores", lambda: 4)
    monkeypatch.setattr(company, "_load", lambda: 1.5)


@pytest.mark.parametrize(("threads", "policy"), [(4, "PASSIVE"), (3, None), (2, None), (1, None)])
def test_threads_sleep_where_the_cores_are_taken(
    threads: int, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    company.choose_wait_policy(expects_company=False)
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_threads_sleep_where_company_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "_load", lambda: 0.0)
    company.choose_wait_policy(expects_company=False)
    assert company.wait_policy() is None
    company.choose_wait_policy(expects_company=True)
    assert company.wait_policy() == "OMP_WAIT_POLICY=PASSIVE"


@pytest.mark.parametrize(
    ("own", "load"), [([0, 1, 2, 3], 2.5), ([0, 3], 0.5), ([1, 2], 2.0), ([70, 71], 2.5)]
)
def test_only_the_cores_that_a_process_may_use_count(
    own: list[int], load: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = [50.0, 100.0, 100.0, 0.0]
    monkeypatch.setattr(psutil, "LINUX", True)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: own, raising=False)
    monkeypatch.setattr(
        psutil, "cpu_percent", lambda _, percpu=False: busy if percpu else sum(busy) / 4
    )
    assert MEASURED() == load


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere no process is kept to some cores")
def test_the_load_is_measured() -> None:
    assert 0 <= MEASURED() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", company.CHOSEN_BY)
def test_a_choice_of_the_user_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "12")
    company.choose_wait_policy(expects_company=True)
    assert company.wait_policy() == f"{name}=12"


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has GNU's OpenMP on Linux only")
def test_torch_is_loaded_with_the_policy() -> None:
    """A variable that is set in Python, before the import, reaches the library."""
    code = """if 1:
        import os
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["OMP_DISPLAY_ENV"] = "true"
        import torch
        torch.get_num_threads()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
