"""`make server LOGIN=1`: who gives no password or a wrong one, and who may only read."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from samples import PROJECT
from servers import free_port, server
from tracked import about, evaluated, every_version, leave_results

from mnist_lstm.pipeline.result_files import read_run
from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.credentials import PASSWORD, URI, USER
from mnist_lstm.tracking.entrant import Entrant
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.view import View

ADMIN = "the administrator's"
PASSWORDS = {"ann": "the password of ann", "bo": "the password of bo"}
pytestmark = pytest.mark.soak  # test_credentials.py and test_registry.py have the short forms


@pytest.fixture
def served(tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with the users ann and bo, beside its administrator."""
    pytest.importorskip("flask_wtf", reason="not installed: make env EXTRAS='team server'")
    folder = tmp_path / "server of 50%"
    (folder / "server").mkdir(parents=True)
    (folder / "server" / "mlflow.db").write_bytes(fresh_store.read_bytes())
    settings = runpy.run_path(str(PROJECT / "scripts" / "mlflow_server.py"))["SETTINGS"]
    assert "\ndefault_permission = EDIT\n" in settings
    reading = settings.replace("permission = EDIT", "permission = READ")
    (folder / "server" / "login.ini").write_text(reading)
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = (sys.executable, PROJECT / "scripts" / "mlflow_server.py", str(port))
    environment = {"LOGIN": "1", "WORKERS": "1", "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN}
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr(handover, "PATIENCE", 600.0)  # as long as a busy machine needs
    with server(*command, folder=folder, health=f"{uri}/health", **environment):
        for name, password in PASSWORDS.items():
            user = {"username": name, "password": password}
            create = f"{uri}/api/2.0/mlflow/users/create"
            requests.post(create, json=user, auth=("admin", ADMIN)).raise_for_status()
        monkeypatch.setenv(URI, uri)
        yield uri
    assert {path.name for path in folder.iterdir()} == {"server", "server.log"}


def test_each_person_may_do_what_the_server_says(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match="the server asks who you are: set "):
        open_store(tmp_path)
    monkeypatch.setenv(USER, "ann")
    monkeypatch.setenv(PASSWORD, PASSWORDS["bo"])
    with pytest.raises(TrackingError, match="the server does not accept these: correct "):
        open_store(tmp_path)

    monkeypatch.setenv(PASSWORD, PASSWORDS["ann"])
    views = []
    for number in range(2):
        folder = tmp_path / str(number)
        leave_results(folder, about(f"{number:032}"))
        evaluated(folder / "evaluate", "2026-01-02T04:00:00+00:00", 10, f"{number:032}")
        views.append(View.read(folder / "train", [folder / "evaluate"]))
    store = open_store(tmp_path)
    project(store, views[0])
    assert registry.champion(store) is None
    digest = read_run(tmp_path / "0" / "train" / "run.json").model_sha256
    version = registry.register(store, Entrant("a", f"{0:032}", digest, "drawn", "d" * 64, 10, 0.5))
    handover.promote(store, version, None, {"why": "it is good"})

    monkeypatch.setenv(USER, "bo")
    monkeypatch.setenv(PASSWORD, PASSWORDS["bo"])
    store = open_store(tmp_path)
    assert registry.champion(store) == every_version(store)[0]
    assert project(store, views[0]) == []
    for forbidden in (
        lambda: project(store, views[1]),
        lambda: handover.promote(store, version, registry.champion(store), {}),
    ):
        with pytest.raises(TrackingError, match="bo has no permission for this; the server's"):
            forbidden()
