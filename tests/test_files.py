import hashlib
from pathlib import Path

import pytest

from mnist_lstm.files import sha256, write_atomically


def test_it_writes_bytes_and_what_a_function_writes(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a", b"bytes")
    write_atomically(tmp_path / "new" / "b", lambda draft: draft.write_text("text"))
    assert (tmp_path / "new" / "a").read_bytes() == b"bytes"
    assert (tmp_path / "new" / "b").read_text() == "text"
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    def half(draft: Path) -> None:
        draft.write_text("half")
        raise OSError(28, "No space left on device", str(draft))

    path = tmp_path / "file"
    write_atomically(path, b"whole")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, half)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
