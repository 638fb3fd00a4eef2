"""Write a page in which you draw a digit and the model reads it row by row."""

import argparse
import webbrowser
from functools import partial
from pathlib import Path

from mnist_lstm.commands import RUN, add_model, chosen_model, note, read_history, write_chosen

HELP = f"""\
Write an HTML page in which you draw with mouse, finger or pen. The model runs in the page, with its
real weights, and shows its belief after each row of pixels. A drawing is prepared as `predict`
prepares a picture. The page also has test images to choose from, if they are in data/sequences, and
shows gates and memory of each layer. It is one file, which needs no network and no server: you can
send it, and open it on a phone.

The model is the champion of MLflow's registry. If there is no champion, it is the workspace's
model. --run or --model names another model. A line on stderr says which model it is.

{RUN}

Exit code: 0 when the page is written, 2 when there is no such model, the page cannot show it,
or the page cannot be written."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_model(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="file for the page (default: draw.html in the project's folder)",
    )
    parser.add_argument(
        "--float16",
        action="store_true",
        help="write the weights with 16 bits instead of 32: the page has half the size, and its "
        "probabilities differ a little from those of `predict`",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Find the model and the test images, write the page, print its path."""
    from mnist_lstm.files import write_atomically
    from mnist_lstm.pipeline import stage

    root = stage.root()
    from mnist_lstm.runs import demonstration  # seconds, with PyTorch
    from mnist_lstm.views.draw_page import page

    history = read_history(root, "draw", mixture=False)
    chosen = chosen_model(history, arguments, "draw")
    found = demonstration.test_images(root, chosen)
    test = None if isinstance(found, str) else found
    if isinstance(found, str):
        note("draw", f"no examples: the test images {found}")
    known = demonstration.predictions(history, chosen, test) if test else ()
    bits = 16 if arguments.float16 else 32
    data = demonstration.data(chosen, bits, test, known)
    content = page(demonstration.title(chosen), data).encode()
    write = partial(write_atomically, content=content)
    print(path := write_chosen(arguments.out, root, "draw.html", write))
    if arguments.open and not webbrowser.open(path.resolve().as_uri()):
        note("draw", "there is no browser to open it here")
    return 0
