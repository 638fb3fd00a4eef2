"""Write a report: the workspace's results beside the committed ones, in one HTML file."""

import argparse
from functools import partial
from pathlib import Path

from mnist_lstm.commands import read_history, say, write_chosen

HELP = """\
Write an HTML page about the results in the workspace. It has their metrics beside those of HEAD,
with the differences; both curves (on MNIST, also the published script's); the confusion matrix; the
accuracy and the model's answers after each row; the most confident mistakes; and all parameters.
The page is one file with all pictures in it. It loads nothing when it opens, so you can send it,
keep it and read it without a network. --markdown prints the first part of it instead; with --out,
it writes this part into the file.

Exit code: 0 when the page is written, 2 when there are no results or the page cannot be written."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="file for the page (default: report.html in the project's folder)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the metrics, the parameters that differ and the curve as Markdown, for a "
        "comment on GitHub, and write no page; with --out, write the Markdown into that file",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read both results, draw the pictures, write the page, print its path."""
    from mnist_lstm.files import write_atomically
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs.report import Report

    root = stage.root()
    report = Report.read(read_history(root, "report", mixture=False))
    if arguments.markdown and arguments.out is None:
        print(report.markdown(), end="")
        return 0
    if arguments.markdown:
        content = report.markdown()
    else:
        say("report", "drawing the pictures")
        content = report.html()
    write = partial(write_atomically, content=content.encode())
    print(write_chosen(arguments.out, root, "report.html", write))
    return 0
