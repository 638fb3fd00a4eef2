"""`make ui`, before anything has run."""

import json
import socket
import urllib.request

from workspace import Workspace


def test_it_makes_the_store_and_opens_on_the_runs_of_the_project(clone: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    printed = ""
    with clone.start("python", "scripts/ui.py", str(port)) as server:
        try:
            assert server.stdout
            for line in server.stdout:
                printed += line
                if "Uvicorn running" in line:
                    break
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
                assert b"<title>MLflow" in page.read()
            address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name"
            with urllib.request.urlopen(f"{address}?experiment_name=mnist-lstm") as answer:
                found = json.load(answer)["experiment"]
        finally:
            server.terminate()
    assert "make ui: there is no run yet: `make repro` makes one" in printed
    assert f"http://127.0.0.1:{port}/#/experiments/{found['experiment_id']}/runs" in printed
    assert found["artifact_location"] == (clone.folder / "mlruns").as_uri()
    assert "Warning" not in printed
