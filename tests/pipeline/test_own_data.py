"""A data set of one's own, made as docs/datasets.md says."""

import re
from pathlib import Path

from samples import PROJECT
from workspace import Workspace, stages_run
from zygote import DRAWN

from mnist_lstm.pipeline.result_files import read_rows


def test_own_images_go_through_the_pipeline(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    own = tmp_path / "data" / "own"
    (code,) = re.findall(r"```python\n(.*?)```", _docs(), flags=re.DOTALL)
    with workspace.start("python", "-c", code, PYTHONPATH="src") as made:
        pass
    assert made.returncode == 0
    workspace.set("fetch.dataset", "own")
    workspace.set("preprocess.validation_size", 50)
    printed = workspace.dvc("repro", **{DRAWN: "yes"})
    assert stages_run(printed) == ["fetch", "preprocess", "train", "evaluate"]
    assert "own: 300 training and 100 test images, into data/raw" in printed
    assert re.search(r"train: +250 images, 12 rows of 9 pixels", printed)
    assert workspace.json("results/train/run.json")["image"] == [12, 9]
    metrics = workspace.json("results/evaluate/metrics.json")
    classes = read_rows(tmp_path / "results" / "evaluate" / "classes.csv")
    assert [row["class"] for row in classes] == ["lighter upwards", "lighter downwards"]
    (last,) = read_rows(tmp_path / "results" / "train" / "curve.csv")[-1:]
    assert metrics["test"]["accuracy"] == last["test_accuracy"]
    for picture in (tmp_path / "results" / "evaluate").glob("*.png"):
        assert picture.stat().st_size > 10_000, picture
    names = (tmp_path / "data" / "raw" / "classes.txt").read_text()
    assert names == (own / "classes.txt").read_text() == "lighter upwards\nlighter downwards\n"

    before = workspace.results()
    workspace.set("train.batch_size", 251)
    refused = workspace.refused("repro")
    mistake = "train.batch_size must be at most the 250 images there are to train on, is 251"
    assert f"train: params.yaml: {mistake}\n" in refused
    assert workspace.results() == before

    labels = own / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1])
    refused = workspace.refused("repro")
    assert stages_run(refused) == ["fetch"]
    assert f"fetch: data/own/{labels.name}: gzip: expected a whole, undamaged stream" in refused
    assert workspace.results() == before


def _docs() -> str:
    return (PROJECT / "docs" / "datasets.md").read_text()
