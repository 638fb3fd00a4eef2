"""How PyTorch's idle threads wait, which depends on what else the machine has to do.

A step is a chain of small products. Between two of them the threads wait for each other, for some
microseconds. OpenMP lets them spin: they look again and again, and take all of a core. Alone, this
is the fastest. Beside other work, the spinning threads take the cores from those that compute.
There, threads sleep (OMP_WAIT_POLICY=PASSIVE). benchmarks/company.py measures both.

The number of threads stays as it is, so no weight changes.
"""

import os

import psutil

CHOSEN_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # OpenMP's variables, for users
SAMPLE = 0.2  # seconds in which the load is measured
TAKEN = 0.5  # cores: less load than this is no company


def choose_wait_policy(*, expects_company: bool) -> None:
    """Let idle threads sleep where other work runs, or is expected.

    Call it before torch is imported. A choice of the user stays. One thread waits for nobody.
    """
    threads = _threads()
    if threads == 1 or wait_policy():
        return
    if expects_company or cores() - _load() < threads - TAKEN:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def wait_policy() -> str | None:
    """The policy of this process in OpenMP's words; None if it is OpenMP's default."""
    found = [f"{name}={os.environ[name]}" for name in CHOSEN_BY if name in os.environ]
    return " ".join(found) or None


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else cores()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count() or 1


def _load() -> float:
    """How many cores that this process may use are at work now. It sleeps meanwhile.

    Other cores of the machine may be other people's, as on a node of a cluster.
    """
    busy = psutil.cpu_percent(SAMPLE, percpu=True)
    own = psutil.Process().cpu_affinity() if psutil.LINUX else range(len(busy))
    if max(own) >= len(busy):  # a container may show its own cores only, with other numbers
        own = range(len(busy))
    return sum(busy[core] for core in own) / 100
