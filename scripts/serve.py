"""Serve the champion on this machine only, until Ctrl-C. Run: make serve (PORT=5001)"""

import os
import re
import socket
import sys
from pathlib import Path

HOST = "127.0.0.1"


def main(port: str) -> None:
    hosts = os.environ.get("SERVE_HOSTS", "").split()
    if wrong := [host for host in hosts if not re.fullmatch(r"(\*\.)?[\w.-]+", host)]:
        sys.exit(
            "make serve: SERVE_HOSTS must be names of hosts such as digits.example.org, with "
            f"spaces between them, has {wrong[0]!r}"
        )
    try:
        socket.create_server((HOST, int(port))).close()
    except (OSError, OverflowError, ValueError):
        sys.exit(f"make serve: cannot use port {port}; take another: make serve PORT=5002")

    from mnist_lstm.tracking.registry import champion
    from mnist_lstm.tracking.store import TrackingError, open_store

    try:
        store = open_store(Path.cwd())
        found = champion(store)
    except TrackingError as error:
        sys.exit(f"make serve: {error}")
    if found is None:
        sys.exit(
            "make serve: there is no champion yet; "
            "`mnist-lstm promote RUN` makes a run the champion"
        )
    print(
        f"make serve: {found.entrant.name}, version {found.number} of row-lstm, validation "
        f"accuracy {found.entrant.summary}: http://{HOST}:{port}/invocations; "
        "Ctrl-C ends it",
        flush=True,
    )
    os.environ |= {
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # `mlflow models serve --env-manager local` names the model to its server in the same way
        "__pyfunc_model_path__": found.uri,
    }
    server = [sys.executable, "-m", "mnist_lstm.serving.app", HOST, port, *hosts]
    os.execv(sys.executable, server)


if __name__ == "__main__":
    main(sys.argv[1])
