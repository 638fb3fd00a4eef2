"""A PostgreSQL server of its own for a test, on a socket in a temporary folder: no port is used."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/opt/homebrew/opt/postgresql*/bin")


def programs() -> Path | None:
    """The folder with PostgreSQL's programs; None if it is not installed."""
    found = [path for place in PLACES for path in Path("/").glob(f"{place[1:]}/createdb")]
    if found:
        return sorted(found)[-1].parent
    there = shutil.which("createdb")
    return Path(there).parent if there else None


@contextmanager
def database(name: str) -> Iterator[str]:
    """The address of an empty database, for the time of the block. Skips the test without one."""
    pytest.importorskip("psycopg", reason="needs a driver of PostgreSQL: the extra `team`")
    if (bin_ := programs()) is None:
        pytest.skip("needs PostgreSQL, which is not installed")
    is_root = os.geteuid() == 0
    user = "nobody" if is_root else pwd.getpwuid(os.geteuid()).pw_name
    as_user = ["setpriv", f"--reuid={user}", "--clear-groups"] if is_root else []
    # the name of a socket must be short: pytest's own folder may be too deep
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as scratch:
        folder = Path(scratch)
        if is_root:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            command = [*as_user, str(bin_ / program), *arguments]
            done = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout

        data = str(folder / "data")
        run(
            "initdb",
            "--pgdata",
            data,
            "--username=test",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        log = str(folder / "log")
        run("pg_ctl", "start", "--wait", "--pgdata", data, "--options", options, "--log", log)
        try:
            run("createdb", f"--host={folder}", "--username=test", name)
            yield f"postgresql://test@/{name}?host={folder}"
        finally:
            run("pg_ctl", "stop", "--wait", "--pgdata", data, "--mode=immediate")
