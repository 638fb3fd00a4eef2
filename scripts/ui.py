"""Start MLflow's UI with the project's runs, until Ctrl-C. Run: make ui (PORT=5000)"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE = 300  # seconds, for a server that starts on a busy machine


def main(port: str) -> None:
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith(("http://", "https://")):
        from mnist_lstm.tracking.credentials import printable

        print(f"make ui: MLFLOW_TRACKING_URI is set, so the runs are at {printable(given)}")
        return
    try:
        socket.create_server((HOST, int(port))).close()
    except (OSError, OverflowError, ValueError):
        sys.exit(f"make ui: cannot use port {port or '(none)'}; take another: make ui PORT=5001")

    print("make ui: starting MLflow, which takes some seconds; Ctrl-C ends it", flush=True)
    from mnist_lstm.tracking.store import open_store
    from mnist_lstm.tracking.store_errors import TrackingError

    try:
        # before the server starts: it would create a new store's tables at the same time as a stage
        store = open_store(Path.cwd())
    except TrackingError as error:
        sys.exit(f"make ui: {error}")
    if not store.client.search_runs([store.experiment_id], max_results=1):
        print(
            "make ui: there is no run yet: `make repro` makes one, and you can watch it train here"
        )
    # the charts of all runs, in MLflow's view for machine learning (not for language models)
    view = "runs?workflowType=machine_learning&compareRunsMode=CHART"
    page = f"http://{HOST}:{port}/#/experiments/{store.experiment_id}/{view}"
    # a process of its own, because this one becomes the server
    subprocess.Popen([sys.executable, __file__, port, page, str(os.getpid())])

    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # only language models need jobs
    os.environ["PYTHONWARNINGS"] = "ignore:starlette.middleware.wsgi"  # MLflow itself causes it
    # in variables: all users of the machine see the options, and an address may have a password
    os.environ["MLFLOW_BACKEND_STORE_URI"] = os.environ["MLFLOW_REGISTRY_STORE_URI"] = store.uri
    server = ["mlflow", "ui", "--host", HOST, "--port", port, "--workers", "1"]
    os.execvp("mlflow", [*server, "--uvicorn-opts", "--no-access-log"])


def announce(port: str, page: str, server: str) -> None:
    """Print the address of the page as soon as the server answers; give up when it has ended."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # uses no proxy
    give_up = time.monotonic() + PATIENCE
    while os.getppid() == int(server) and time.monotonic() < give_up:
        try:
            direct.open(f"http://{HOST}:{port}/health", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            print(
                f"make ui: {page}\n"
                "make ui: if you see Traces and Judges there, click `Model training` at the top "
                "left; MLflow remembers it",
                flush=True,
            )
            return


if __name__ == "__main__":
    try:
        announce(*sys.argv[1:]) if sys.argv[2:] else main(sys.argv[1])
    except KeyboardInterrupt:  # Ctrl-C reaches all processes of the terminal
        sys.exit(130)
