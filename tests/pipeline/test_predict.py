"""`mnist-lstm predict` in a project that has run, on pictures of its test images.

test_champion.py has the tests with a champion.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from workspace import Workspace

from mnist_lstm.cli import main
from mnist_lstm.data.photo import form_of, read
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import RowLSTM, infer

SOME = 20  # test images


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(workspace.folder)
    return workspace


@pytest.fixture
def pictures(here: Workspace, tmp_path: Path) -> Path:
    """A folder with test images as PNGs, named by their number."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images = Sequences.load(here.folder / "data" / "sequences" / "test.safetensors").pixels
    for number, image in enumerate(images[:SOME].numpy()):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


def test_every_way_to_name_the_model_gives_its_answers(
    here: Workspace, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = here.folder / "results" / "train" / "model.safetensors"
    form = form_of("digits", 8, 8)
    seen = torch.from_numpy(
        np.stack([read(file, form).pixels for file in sorted(pictures.iterdir())])
    )
    expected = infer(RowLSTM.load(weights), seen, SOME).double().softmax(dim=1)
    name = here.json("results/train/run.json")["name"]
    for which in ([], ["--run", name], ["--model", str(weights)]):
        assert main(["predict", str(pictures), "--json", *which]) == 0
        printed = capsys.readouterr()
        assert name in printed.err
        answers = json.loads(printed.out)
        assert [one["file"] for one in answers] == [
            str(file) for file in sorted(pictures.iterdir())
        ]
        assert [one["class"] for one in answers] == [str(int(row.argmax())) for row in expected]
        found = torch.tensor([list(one["probabilities"].values()) for one in answers])
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_explain_shows_each_row_and_bad_files_are_skipped(
    here: Workspace, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "none.png").write_text("no picture")
    arguments = [str(pictures / "none.png"), str(pictures / "003.png"), str(pictures / "gone.png")]
    assert main(["predict", *arguments, "--explain", "--show", str(tmp_path / "seen")]) == 1
    printed = capsys.readouterr()
    title, *bars = printed.out.rstrip().splitlines()
    assert title.startswith(str(pictures / "003.png"))
    assert [int(line.split()[0]) for line in bars] == list(range(1, 9))  # the rows of a digit
    assert f"{pictures / 'none.png'}: not a PNG or JPEG image\n" in printed.err
    assert f"{pictures / 'gone.png'}: no such file or folder\n" in printed.err
    shown = {path.name for path in (tmp_path / "seen").iterdir()}
    assert shown == {"003.seen.png", "003.belief.png"}


def test_without_a_model_predict_names_the_command_that_makes_one(
    clone: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone.folder)
    assert main(["predict", "some.png"]) == 2
    assert capsys.readouterr().err == (
        "mnist-lstm predict: there is no champion and no file results/train/model.safetensors: "
        "no run yet: `dvc repro` makes one\n"
    )
