"""Arguments of the commands are checked before any work."""

import argparse
import os
from pathlib import Path

import pytest

from mnist_lstm.commands import writable_folder


def test_a_folder_is_there_or_can_be_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "new" / "folder"):
        assert writable_folder(str(path)) == path
    (tmp_path / "file").touch()
    for name in ("file", "file/folder"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"file is no folder$"):
            writable_folder(str(tmp_path / name))


def test_a_folder_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(argparse.ArgumentTypeError, match=r" cannot be written to$"):
        writable_folder(str(tmp_path / "new"))
