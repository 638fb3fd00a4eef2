"""What a process lacks is made good: tried in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import PROJECT

from mnist_lstm.pipeline.process import COLLECTED_EVERY, OUTPUT

PRINTS = r"print('é … \U0001f600 \udcff')"
RAISES = """
try:
    print("lost")
except OSError as error:
    process.discard_output()
    sys.exit(f"{error.filename}: {error.strerror}")
"""
NAMED_BY = ("LOGNAME", "USER", "LNAME", "USERNAME")
NAMES = "import getpass; print(getpass.getuser())"
NAMELESS = """
import os, pwd
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
"""


def prepared(
    code: str, before: str = "", redirected: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """A process that prepares itself, then runs that code; a shell redirects its output."""
    script = f"{before}\nimport sys\nfrom mnist_lstm.pipeline import process\nprocess.prepare()\n"
    kept = {key: value for key, value in os.environ.items() if key not in NAMED_BY}
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, "-c", f"{script}{code}"],
        env=kept | {"PYTHONPATH": str(PROJECT / "src")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "é … \U0001f600 \\udcff"),
        ("latin-1", "é \\u2026 \\U0001f600 \\udcff"),
        ("ascii", "\\xe9 \\u2026 \\U0001f600 \\udcff"),
    ],
)
def test_output_takes_any_character(encoding: str, expected: str) -> None:
    script = f"import sys\nfrom mnist_lstm.pipeline import process\nprocess.prepare()\n{PRINTS}"
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src"), "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.stdout.decode(encoding) == f"{expected}\n", done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_an_output_that_is_full_is_named() -> None:
    assert prepared(RAISES, redirected="> /dev/full").stderr == (
        f"{OUTPUT}: No space left on device\n"
    )


def test_garbage_is_collected_less_often_and_still_collected() -> None:
    done = prepared("import gc; print(gc.isenabled(), gc.get_threshold()[0])")
    assert done.stdout == f"True {COLLECTED_EVERY}\n"


def test_an_output_that_is_closed_takes_all() -> None:
    asks = "print('lost'); assert not sys.stdout.isatty(); print(open('/dev/null').fileno() > 2)"
    done = prepared(f"{asks}; print('said', file=sys.stderr)", redirected=">&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "said\n")
    assert prepared(asks, redirected=">&- 2>&-").returncode == 0


def test_a_user_without_a_name_gets_one() -> None:
    assert prepared(NAMES, before=NAMELESS).stdout == f"uid_{os.getuid()}\n"
    assert prepared(NAMES, before=NAMELESS, LOGNAME="me").stdout == "me\n"
