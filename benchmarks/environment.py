"""An environment with TensorFlow, Keras and tf_keras for the benchmark: .venv-bench."""

import subprocess
import sys
import zlib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / ".venv-bench"
LOCK = PROJECT / "benchmarks" / "requirements.lock"
MADE_FROM = FOLDER / "made-from"  # written last; if it is missing, an installation was interrupted


class Unavailable(Exception):
    """The environment could not be made. The message says why, in one line."""


def python() -> Path:
    """Make or update the environment, after printing so, and return its interpreter.

    Raises Unavailable.
    """
    interpreter = FOLDER / "bin" / "python"
    source = f"{FOLDER}\n{sys.version}\n{zlib.crc32(LOCK.read_bytes())}\n"
    if MADE_FROM.exists() and MADE_FROM.read_text() == source and interpreter.exists():
        return interpreter
    print(
        "bench: making .venv-bench with TensorFlow, Keras and tf_keras of benchmarks/"
        "requirements.lock:\nbench: about 0.4 GB to download, less what uv has in its cache, and "
        "1.5 GB on disk; a few minutes at most",
        flush=True,
    )
    MADE_FROM.unlink(missing_ok=True)
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER))
    _uv("pip", "sync", "--quiet", "--require-hashes", "--python", str(FOLDER), str(LOCK))
    MADE_FROM.write_text(source)
    return interpreter


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines()]
        said = [line for line in lines if line and not line.lower().startswith("warning")]
        reason = " ".join(said)[:200] or f"exit code {done.returncode}"
        raise Unavailable(f"TensorFlow could not be installed ({reason})")
