"""Promote a version in each round, as one of several people; test_on_a_server.py starts them.

Run: python promoting.py NAME ROOT ROUNDS

In each round it prints `ready`, waits for a line, promotes the version of this name, prints the
error as JSON (null for success), and waits for another line.
"""

import json
import sys
from pathlib import Path

from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.store_errors import TrackingError


def main(name: str, root: str, rounds: str) -> None:
    store = open_store(Path(root))
    every = map(registry.as_version, registry.versions(store))
    versions = {one.entrant.name: one for one in every}
    for number in range(int(rounds)):
        instead_of, error = registry.champion(store), None
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            note = {"by": name, "host": "here", "round": number}
            handover.promote(store, versions[name], instead_of, note)
        except TrackingError as refused:
            error = str(refused)
        print(json.dumps(error), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
