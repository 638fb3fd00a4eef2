"""Write files atomically, and compute their digests."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(
    path: Path, content: bytes | Callable[[Path], object], *, scratch: Path | None = None
) -> None:
    """Write all of `content` to `path`, or leave the old file as it was.

    `content` is the bytes, or a function that writes them to a given path. They are written to a
    draft in the folder `scratch` (by default, the folder of `path`; it must be on the same file
    system), and the draft is renamed. Missing folders are created. Raises OSError with `path` as
    its filename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = (scratch or path.parent) / f".{path.name}.{os.getpid()}.draft"
    try:
        if isinstance(content, bytes):
            draft.write_bytes(content)
        else:
            content(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # otherwise a power cut may leave the name without the bytes
        draft.replace(path)
    except OSError as error:
        error.filename = str(path)  # the user does not know the draft, and write() names no file
        raise
    finally:
        draft.unlink(missing_ok=True)
