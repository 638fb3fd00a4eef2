"""`mnist-lstm draw` in a project that has run. tests/views/test_draw_page.py tests the page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import browser, needs_chromium
from PIL import Image
from workspace import Workspace

from mnist_lstm.cli import main
from mnist_lstm.data.sequences import Sequences


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(workspace.folder)
    return workspace


def source(text: str) -> str:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)["source"]


def test_it_takes_the_model_that_predict_takes(
    here: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, name = "results/train/model.safetensors", here.json("results/train/run.json")["name"]
    for which in ([], ["--run", name], ["--model", weights]):
        assert main(["draw", *which]) == 0
        printed = capsys.readouterr()
        assert printed.out == "draw.html\n"
        (said,) = printed.err.splitlines()  # its examples are here
        assert said == f"mnist-lstm draw: model: {source(Path('draw.html').read_text())}"
        assert name in said
    assert here.git("status", "--porcelain", "draw.html") == ""  # git ignores it


@needs_chromium
def test_the_page_gives_the_answers_of_predict(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 test images as PNG files, and with the page's functions."""
    images = Sequences.load(here.folder / "data" / "sequences" / "test.safetensors").pixels[:200]
    (pictures := tmp_path / "pictures").mkdir()
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(pictures / f"{number:03}.png")
    assert main(["predict", str(pictures), "--json", "--show", str(tmp_path / "seen")]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert main(["draw", "--out", str(tmp_path / "page.html")]) == 0
    with browser(tmp_path / "browser") as opened:
        opened.open(tmp_path / "page.html")
        for number, answer in enumerate(answers):
            seen = np.asarray(Image.open(tmp_path / "seen" / f"{number:03}.seen.png"))
            pixels = seen[:: seen.shape[0] // 8, :: seen.shape[1] // 8].flatten().tolist()
            (found,) = opened.evaluate(f"readImage(model, {pixels}).beliefs.slice(-1)")
            expected = list(answer["probabilities"].values())
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
            assert str(np.argmax(found)) == answer["class"]
        assert opened.complaints == []
        assert opened.evaluate("document.querySelectorAll('#first button').length") > 1
