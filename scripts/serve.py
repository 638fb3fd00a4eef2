"""Serve the champion on this machine only, until Ctrl-C. Run: make serve (PORT=5001)"""

import os
import socket
import sys
from pathlib import Path

HOST = "127.0.0.1"


def main(port: str) -> None:
    from mnist_lstm import UserError
    from mnist_lstm.serving.request import check_hosts

    names = os.environ.get("SERVE_HOSTS", "").split()
    try:
        check_hosts(names)
    except UserError as error:
        sys.exit(f"make serve: SERVE_HOSTS: {error}")
    try:
        socket.create_server((HOST, int(port))).close()
    except (OSError, OverflowError, ValueError):
        sys.exit(
            f"make serve: cannot use port {port or '(none)'}; take another: make serve PORT=5002"
        )

    from mnist_lstm.runs import servable
    from mnist_lstm.runs.history import History
    from mnist_lstm.runs.predictor import of_version
    from mnist_lstm.serving.app import serve
    from mnist_lstm.tracking.registry import champion
    from mnist_lstm.tracking.store import open_store
    from mnist_lstm.views.text_table import escaped

    def note(line: str) -> None:
        print(f"make serve: {escaped(line)}", file=sys.stderr)

    try:
        root = Path.cwd()
        store = open_store(root)
        found = champion(store)
        if found is None:
            sys.exit(
                "make serve: there is no champion yet; "
                "`mnist-lstm promote RUN` makes a run the champion"
            )
        history = History(root)
        served = servable.of(history, of_version(history, store, found), note)
    except UserError as error:
        sys.exit(f"make serve: {escaped(str(error))}")
    name = escaped(found.entrant.name)
    print(
        f"make serve: {name}, {found.title}, validation accuracy "
        f"{found.entrant.summary}: http://{HOST}:{port}/; Ctrl-C ends it",
        flush=True,
    )
    serve(served, HOST, int(port), names)


if __name__ == "__main__":
    main(sys.argv[1])
