"""`make ui`, before anything has run."""

import json
import time
import urllib.request

from servers import free_port, listens_on, make, server
from workspace import Workspace


def test_it_makes_the_store_and_opens_on_the_runs_of_the_project(clone: Workspace) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = make(clone, "ui", port)
    with server(*command, folder=clone.folder, health=f"{url}/health"):
        assert listens_on(clone.folder) == {"127.0.0.1"}
        with urllib.request.urlopen(f"{url}/") as page:
            assert b"<title>MLflow" in page.read()
        address = f"{url}/api/2.0/mlflow/experiments/get-by-name"
        with urllib.request.urlopen(f"{address}?experiment_name=mnist-lstm") as answer:
            found = json.load(answer)["experiment"]
        page, log = (
            f"{url}/#/experiments/{found['experiment_id']}/runs",
            clone.folder / "server.log",
        )
        while page not in log.read_text():  # the test's time limit ends it
            time.sleep(0.1)
    printed = (clone.folder / "server.log").read_text()
    assert "make ui: there is no run yet: `make repro` makes one" in printed
    assert printed.index("Application startup complete") < printed.index(page)
    assert found["artifact_location"] == (clone.folder / "mlruns").as_uri()
    assert "Warning" not in printed
