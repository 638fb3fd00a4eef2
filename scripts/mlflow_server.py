"""Start an MLflow server for several people, until Ctrl-C. Run: make server (PORT=5000)

BACKEND is a database (default: SQLite in server/), ARTIFACTS a folder or s3://bucket/prefix
(default: server/artifacts). The server hands out the artifacts: nobody else needs access to them.
ADDRESS=0.0.0.0 lets other machines in; NAMES are the names by which they call this one. LOGIN=1
asks everybody for a name and a password; at its first start, MLFLOW_AUTH_ADMIN_PASSWORD has that of
the user admin. WORKERS is the number of processes (default: 2).
"""

import importlib.util
import os
import secrets
import socket
import sys
from pathlib import Path

FOLDER = Path("server")
EVERY = ("0.0.0.0", "::")  # listen on all networks; nobody can call a machine by them
SHORTEST = 12  # characters of a password, by MLflow's rule
USERS = FOLDER / "users.db"
SETTINGS = f"""\
[mlflow]
# what everybody may do who has a name and a password: EDIT, or READ
default_permission = EDIT
admin_username = admin
database_uri = sqlite:///{USERS}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def main(port: str) -> None:
    given = os.environ
    host, names = given.get("ADDRESS") or "127.0.0.1", given.get("NAMES") or ""
    artifacts = given.get("ARTIFACTS") or str(FOLDER.resolve() / "artifacts")
    try:
        socket.create_server((host, int(port))).close()
    except (OSError, OverflowError, ValueError):
        sys.exit(
            f"make server: cannot use port {port or '(none)'} of {host}; take another: "
            "make server PORT=5003"
        )
    # runs, artifacts and users are for the server alone, which hands them out
    os.umask(0o077)
    if FOLDER.is_dir():
        FOLDER.chmod(0o700)
    from mnist_lstm.tracking import credentials
    from mnist_lstm.tracking.store import uri_of_file

    if backend := given.get("BACKEND"):
        given[credentials.URI] = backend
        credentials.hide()  # its password is then in no list of processes
        backend = given.pop(credentials.URI)
        given.pop("BACKEND")
    else:
        FOLDER.mkdir(exist_ok=True)
        backend = uri_of_file(FOLDER.resolve() / "mlflow.db")
    login = bool(given.get("LOGIN"))
    needed = {
        "psycopg": backend.startswith("postgres"),
        "boto3": artifacts.startswith("s3:"),
        "flask_wtf": login,
    }
    for module, is_needed in needed.items():
        if is_needed and importlib.util.find_spec(module) is None:
            # EXTRAS replaces the earlier choice
            extras = '"team server"' if importlib.util.find_spec("dvc_s3") else "server"
            sys.exit(f"make server: this needs {module}; `make env EXTRAS={extras}` installs it")
    asking = ask_for_logins() if login else []
    address = names.split(",")[0] or ("<the IP address of this machine>" if host in EVERY else host)
    print(
        f"make server: runs in {credentials.printable(backend)}, artifacts in {artifacts}; people "
        "write\n"
        f"    export MLFLOW_TRACKING_URI=http://{address}:{port}",
        flush=True,
    )
    if not names and host in EVERY:
        print("make server: NAMES=mlflow.example.org lets them use a name instead", flush=True)
    given.pop(credentials.URI, None)  # which is for clients
    given["MLFLOW_BACKEND_STORE_URI"] = given["MLFLOW_REGISTRY_STORE_URI"] = backend
    given["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # only language models need jobs
    given["PYTHONWARNINGS"] = "ignore:starlette.middleware.wsgi"  # MLflow itself causes it
    workers = given.get("WORKERS") or "2"
    server = ["mlflow", "server", "--host", host, "--port", port, "--workers", workers, *asking]
    served = ["--artifacts-destination", artifacts, "--uvicorn-opts", "--no-access-log"]
    if names:
        served += [
            "--allowed-hosts",
            ",".join(f"{name},{name}:{port}" for name in names.split(",")),
        ]
    os.execvp("mlflow", [*server, *served])


def ask_for_logins() -> list[str]:
    """The options of a server that asks for a name and a password. Its users are in server/."""
    FOLDER.mkdir(exist_ok=True)
    if len(os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD", "")) < SHORTEST and not USERS.exists():
        sys.exit(
            "make server: LOGIN=1 needs a password for the user admin, at its first start; set "
            f"MLFLOW_AUTH_ADMIN_PASSWORD to {SHORTEST} characters or more"
        )
    settings = FOLDER.resolve() / "login.ini"
    if not settings.exists():
        settings.write_text(SETTINGS)
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(settings)
    os.environ.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_hex())
    return ["--app-name", "basic-auth"]


if __name__ == "__main__":
    main(sys.argv[1])
