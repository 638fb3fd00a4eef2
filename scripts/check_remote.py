"""Check that the DVC remote has all files that dvc.lock names. Run: python scripts/check_remote.py

Prints the files that it lacks, each on a line. Exit code: 0 when it lacks none, or when the project
has no remote; 1 when it lacks some, when it cannot be reached, or when no remote is the default.
"""

import json
import re
import subprocess
import sys


def main() -> None:
    """Ask DVC, which compares MD5 sums and downloads nothing."""
    if not _dvc("remote", "list").strip():
        print("this project has no DVC remote: nothing to check")
        return
    if subprocess.run(["dvc", "remote", "default"], capture_output=True).returncode:
        sys.exit("no remote is the default: `dvc remote default NAME` makes one the default")
    status = json.loads(_dvc("data", "status", "--not-in-remote", "--json") or "{}")
    missing = status.get("not_in_remote", [])
    print(*missing, sep="\n", end="\n" if missing else "")
    if missing:
        what = f"{len(missing)} files are not in the remote, or it cannot be reached from here"
        sys.exit(f"{what}; run `dvc push` on the machine that made them: it says which")
    print("the remote has all files that dvc.lock names")


def _dvc(*arguments: str) -> str:
    """What dvc prints. Raises SystemExit with its reason, in one line, if it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        said = re.search(r"(?m)^ERROR: (?:unexpected error - )?(.+)", done.stderr)
        reason = said[1] if said else f"`dvc {' '.join(arguments)}` failed: {done.stderr.strip()}"
        sys.exit(f"the DVC remote cannot be used: {reason}; docs/team.md says what it needs")
    return done.stdout


if __name__ == "__main__":
    main()
