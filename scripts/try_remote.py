"""Check that `dvc push` can write to the DVC remote. Run: python scripts/try_remote.py

Writes what DVC would write for an empty file. Exit code: 0 when it can; otherwise 1, with one line
that says why not.
"""

import hashlib
import sys
import tempfile

from dvc.fs import localfs
from dvc.repo import Repo


def main() -> None:
    """Write, because a key that lists the files may be good for reading alone."""
    md5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    try:
        remote = Repo().cloud.get_remote_odb(command="push")
        with tempfile.NamedTemporaryFile() as empty:
            remote.add(empty.name, localfs, md5, check_exists=False)
    except Exception as error:  # each kind of remote has its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        sys.exit(f"the DVC remote cannot be used: {reason}; docs/team.md says what it needs")


if __name__ == "__main__":
    main()
