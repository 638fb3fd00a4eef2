"""Write a folder from which another machine serves a model."""

import argparse
import os
from functools import partial
from pathlib import Path

from mnist_lstm.commands import RUN, add_model, chosen_model, note, read_history

HELP = f"""\
Write a folder with a model and all that a server of it needs: its weights, its page, the names of
its classes, and what is usual on the test images. The server then needs neither this repository nor
MLflow nor DVC. Containerfile makes an image of the folder `served`: docs/serving.md.

The model is the champion of MLflow's registry. If there is no champion, it is the workspace's
model. --run or --model names another model. A line on stderr says which model it is.

{RUN}

Exit code: 0 when the folder is written, 2 when there is no such model or the folder cannot be
written."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_model(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the folder (default: served in the project's folder)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Find the model and what is known of it, write the folder, print its path."""
    from mnist_lstm.pipeline import stage

    root = stage.root()
    from mnist_lstm.runs import servable  # seconds, with PyTorch

    history = read_history(root, "export", mixture=False)
    chosen = chosen_model(history, arguments, "export")

    served = servable.of(history, chosen, partial(note, "export"))
    path = Path(os.path.relpath(arguments.out or root / "served"))
    served.write(path)
    print(path)
    return 0
