"""Run a stage as several processes, with torchrun's launcher underneath.

The stage that DVC starts becomes the launcher. It starts the same command several times, and ends
as a single process would: with one line and one exit code. If a process is killed, the launcher
starts all of them again, and they continue from their checkpoint. On several hosts, torchrun is the
launcher: docs/machines.md.
"""

import json
import logging
import os
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.pipeline import company
from mnist_lstm.pipeline.signals import NAMES, OUTCOMES

# Otherwise processes that are started again may find the addresses of those before them
OWN_STORE = ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
RESTARTS = 3  # times that all processes are started again


class Ended(BaseException):
    """One of the processes reported how all of them ended: a line, and the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def is_needed(processes: int) -> bool:
    """Whether this process has to start the others, since neither we nor torchrun started it."""
    return processes > 1 and "RANK" not in os.environ


def is_one_of_several() -> bool:
    """Whether the launcher of a stage started this process."""
    return OUTCOMES in os.environ


def restarts() -> int:
    """How often all processes were started again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def run(processes: int) -> None:
    """Run this process's own command line as several processes, and wait for their end.

    Raises Ended if one of them reported an error, and UserError if they failed too often.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # it logs each signal
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault(*OWN_STORE)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, company.cores() // processes)))
    stopped, failed = None, False
    with tempfile.TemporaryDirectory() as folder:
        os.environ[OUTCOMES] = folder
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=RESTARTS,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except SignalException as error:
            stopped = error.sigval
        except ChildFailedError:
            failed = True
        finally:
            del os.environ[OUTCOMES]
        reported = [json.loads(file.read_bytes()) for file in sorted(Path(folder).glob("*.json"))]
        reasons = [file.read_text() for file in sorted(Path(folder).glob("*.txt"))]
    if reported:
        raise Ended(**reported[0])
    if stopped is not None:
        name = NAMES.get(stopped, stopped.name)
        raise Ended(f"stopped by {name}; earlier results are kept: run it again", 128 + stopped)
    if failed:
        last = f", the last time because {reasons[0]}" if reasons else ""
        raise UserError(
            f"its {processes} processes failed {RESTARTS + 1} times, as is said above{last}; run "
            "it again: it continues from its last checkpoint"
        )


def report(message: str, exit_code: int) -> None:
    """Tell the launcher why this process ends, and exit.

    The exit code is 0: the launcher starts all processes again only if one was killed or failed.
    """
    path = Path(os.environ[OUTCOMES]) / f"{int(os.environ['RANK']):04d}.json"
    with suppress(OSError):
        write_atomically(path, json.dumps({"message": message, "exit_code": exit_code}).encode())
    sys.exit(0)


def leave(stage: str, reason: str) -> None:
    """Exit since the other processes cannot be reached.

    All are started again, unless another process reported why it ended. The launcher gives the
    `reason` if it starts them no more.
    """
    if not is_one_of_several():
        sys.exit(f"{stage}: {reason}")
    outcomes = Path(os.environ[OUTCOMES])
    if any(outcomes.glob("*.json")):
        sys.exit(0)
    with suppress(OSError):
        write_atomically(outcomes / f"{int(os.environ['RANK']):04d}.txt", reason.encode())
    sys.exit(1)
