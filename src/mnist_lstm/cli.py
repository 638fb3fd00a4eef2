"""The `mnist-lstm` command: parses the command line and calls the subcommand."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from functools import partial

from mnist_lstm import UserError, __version__
from mnist_lstm.commands import (
    HelpFormatter,
    compare,
    draw,
    export,
    from_here,
    predict,
    promote,
    report,
    reproduce,
    runs,
    search,
    seeds,
    sync,
    verify,
)
from mnist_lstm.pipeline import process
from mnist_lstm.runs.child import interruptible
from mnist_lstm.views.text_table import escaped

COMMANDS = {
    "compare": compare,
    "draw": draw,
    "export": export,
    "predict": predict,
    "promote": promote,
    "report": report,
    "reproduce": reproduce,
    "runs": runs,
    "search": search,
    "seeds": seeds,
    "sync": sync,
    "verify": verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns its exit code: 2 if a `UserError` stopped it."""
    process.prepare()
    parser = argparse.ArgumentParser(
        prog="mnist-lstm",
        description="List, compare, repeat, share and use the trained models of this project.",
        # argparse measures the names without their own indentation: with an indentation of two,
        # it would put the longest name on a line of its own
        formatter_class=partial(argparse.HelpFormatter, indent_increment=1),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").rstrip("."),
            description=module.HELP,
            formatter_class=HelpFormatter,
        )
        module.add(command)
        command.set_defaults(run=module.run, name=name)
    name = "mnist-lstm"
    try:
        try:
            _check_command(sys.argv[1:] if arguments is None else arguments)
            parsed = parser.parse_args(arguments)
            name += f" {parsed.name}"
            with interruptible():
                code: int = parsed.run(parsed)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {escaped(from_here(str(error)))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.filename != process.OUTPUT:
            from mnist_lstm.pipeline import stage  # imports slow modules

            if error.errno not in stage.OF_THE_DISK:
                raise
            print(f"{name}: {escaped(stage.in_one_line(error))}", file=sys.stderr)
            return 2
        process.discard_output()
        if isinstance(error, BrokenPipeError):  # who reads it has read enough: `mnist-lstm | head`
            return 141
        print(f"{name}: {process.OUTPUT}: {error.strerror}", file=sys.stderr)
        return 2
    return code


def _check_command(arguments: Sequence[str]) -> None:
    """Raise UserError with a suggestion if the first word is the name of no command."""
    name = arguments[0] if arguments else ""
    if name and not name.startswith("-") and name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {name!r}; {hint}")
