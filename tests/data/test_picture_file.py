import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lstm import UserError
from mnist_lstm.data import picture_file
from mnist_lstm.data.picture_file import SMALL_FILE, decode, files_in, is_small

PAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))


def claim(path: Path, width: int, height: int) -> None:
    """Write a small picture whose header claims another size."""
    Image.new("L", (9, 9)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize("side", [10_001, 30_000])  # of the second, Pillow says so itself
def test_a_picture_that_fills_the_memory_is_refused(tmp_path: Path, side: int) -> None:
    claim(tmp_path / "large.png", side, side)
    with pytest.raises(UserError, match=r"^has more than 100,000,000 pixels; make"):
        decode(tmp_path / "large.png")


def test_a_picture_with_a_side_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    claim(tmp_path / "long.png", 100_000_000, 1)
    with pytest.raises(UserError, match=r"^has a side of more than 65,535 pixels; make"):
        decode(tmp_path / "long.png")


@pytest.mark.parametrize(
    ("width", "height", "small"), [(64, 64, True), (65, 64, False), (100_000_000, 1, False)]
)
def test_small_pictures_are_told_by_their_header(
    tmp_path: Path, width: int, height: int, small: bool
) -> None:
    claim(tmp_path / "one.png", width, height)
    content = (tmp_path / "one.png").read_bytes()
    assert is_small(content) == small
    assert not is_small(content + bytes(SMALL_FILE))
    assert not is_small(content[:20])


def test_a_large_picture_is_taken_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.resize((1200, 1200), Image.Resampling.BICUBIC)
    page.convert("RGBA").save(tmp_path / "page.png")
    whole = decode(tmp_path / "page.png")
    monkeypatch.setattr(picture_file, "BAND", 1)
    assert (decode(tmp_path / "page.png") == whole).all()


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    PAGE.save(path)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(UserError, match=r"^damaged \("):
        decode(path)


def test_a_folder_is_its_pictures(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files_in(tmp_path)] == ["a.jpeg", "b.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no PNG or JPEG files in this folder"):
        files_in(tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        files_in(tmp_path / "nowhere")
