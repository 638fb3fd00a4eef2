"""Compile requirements.lock: what everybody needs, then what the extras add. Run: make lock

All of it is resolved together, so that an extra cannot need other versions than the rest. A line
`# extras: team` is above the packages that this extra adds; scripts/env.sh reads these lines.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

LOCK = Path("requirements.lock")
UV = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "--group", "dev"),
    "pyproject.toml",
)


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    extras = sorted(project["project"]["optional-dependencies"])
    # the present versions stay, as long as pyproject.toml allows them
    whole = compiled(extras, LOCK.read_text(encoding="utf-8"))
    base = compiled([], whole)
    LOCK.write_text(
        joined(base, whole, {extra: blocks(compiled([extra], whole)) for extra in extras}),
        encoding="utf-8",
    )


def joined(base: str, whole: str, of_extra: Mapping[str, Mapping[str, str]]) -> str:
    """The lock of all: `base`, and a section for each set of extras that add the same packages."""
    sections: dict[tuple[str, ...], list[str]] = {}
    for name, block in blocks(whole).items():
        if name not in blocks(base):
            users = tuple(extra for extra, added in of_extra.items() if name in added)
            sections.setdefault(users, []).append(block)
    added = (
        f"# extras: {' '.join(users)}\n{''.join(sections[users])}" for users in sorted(sections)
    )
    return base + "".join(added)


def blocks(lock: str) -> dict[str, str]:
    """The lines of each package of a lock, by its name."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if named := re.match(r"[a-z0-9][\w.-]*(?===)", line):
            name = named[0]
            found[name] = found.get(name, "") + line  # several, where platforms differ
        elif found and not line.startswith("#"):
            found[name] += line
    return found


def compiled(extras: Sequence[str], preferred: str) -> str:
    """The lock of the project with these extras, in the versions of another lock if they fit."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / LOCK.name
        path.write_text(preferred, encoding="utf-8")
        options = [word for extra in extras for word in ("--extra", extra)]
        done = subprocess.run([*UV, *options, "-o", path], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit("make lock: uv found no versions that fit together, see above")
        return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
