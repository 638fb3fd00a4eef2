"""Start a contender's process, wait for it, and read the JSON line that it prints."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.contender import Work

PROJECT = Path(__file__).resolve().parents[1]
MINUTES = 15  # a process that takes longer has failed


def measured(
    contender: str, work: Work, python: str | os.PathLike[str] = sys.executable
) -> dict[str, Any]:
    """The measurements of a file of contenders/, or `{"skipped": reason}` if there are none."""
    command = [str(python), "-m", f"benchmarks.contenders.{contender}", json.dumps(asdict(work))]
    try:
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=environment(work.threads),
            capture_output=True,
            text=True,
            check=False,
            timeout=MINUTES * 60,
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"failed: not done after {MINUTES} minutes"}
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"skipped": f"failed: {last.strip()}"}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def environment(threads: int) -> dict[str, str]:
    """The user's environment variables, with the same number of threads for every library."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH")
    }
    return own | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def environment_of_a_clone(threads: int) -> dict[str, str]:
    """As `environment`, for commands in a clone: with this environment's programs.

    No variable names the user's own project, experiment or MLflow store.
    """
    users = ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME")
    own = {name: value for name, value in environment(threads).items() if name not in users}
    return own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"}
