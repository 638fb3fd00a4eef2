"""Start an MLflow server for several people, until Ctrl-C. Run: make server (PORT=5000)

BACKEND is a database (default: SQLite in server/), ARTIFACTS a folder or s3://bucket/prefix
(default: server/artifacts). The server hands out the artifacts: nobody else needs access to them.
ADDRESS=0.0.0.0 lets other machines in; NAMES are the names by which they call this one.
"""

import importlib.util
import os
import socket
import sys
from pathlib import Path

FOLDER = Path("server")


def main(port: str) -> None:
    given = os.environ
    host, names = given.get("ADDRESS") or "127.0.0.1", given.get("NAMES") or ""
    artifacts = given.get("ARTIFACTS") or str(FOLDER.resolve() / "artifacts")
    try:
        socket.create_server((host, int(port))).close()
    except (OSError, OverflowError, ValueError):
        sys.exit(
            f"make server: cannot use port {port} of {host}; take another: make server PORT=5003"
        )
    from mnist_lstm.tracking import credentials
    from mnist_lstm.tracking.store import printable

    if backend := given.get("BACKEND"):
        given[credentials.URI] = backend
        credentials.hide()  # its password is then in no list of processes
        backend = given.pop(credentials.URI)
        given.pop("BACKEND")
    else:
        FOLDER.mkdir(exist_ok=True)
        backend = f"sqlite:///{FOLDER.resolve() / 'mlflow.db'}"
    for scheme, module in (("postgres", "psycopg"), ("s3:", "boto3")):
        wanted = backend.startswith(scheme) or artifacts.startswith(scheme)
        if wanted and importlib.util.find_spec(module) is None:
            sys.exit(f"make server: this needs {module}; `make env EXTRAS=server` installs it")
    print(
        f"make server: runs in {printable(backend)}, artifacts in {artifacts}; people write\n"
        f"    export MLFLOW_TRACKING_URI=http://{names.split(',')[0] or host}:{port}",
        flush=True,
    )
    given.pop(credentials.URI, None)  # which is for clients
    given["MLFLOW_BACKEND_STORE_URI"] = given["MLFLOW_REGISTRY_STORE_URI"] = backend
    given["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # only language models need jobs
    given["PYTHONWARNINGS"] = "ignore:starlette.middleware.wsgi"  # MLflow itself causes it
    server = ["mlflow", "server", "--host", host, "--port", port, "--workers", "2"]
    served = ["--artifacts-destination", artifacts, "--uvicorn-opts", "--no-access-log"]
    if names:
        served += [
            "--allowed-hosts",
            ",".join(f"{name},{name}:{port}" for name in names.split(",")),
        ]
    os.execvp("mlflow", [*server, *served])


if __name__ == "__main__":
    main(sys.argv[1])
