"""Train a recipe with several seeds, and say what they have in common."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import count

if TYPE_CHECKING:
    from mnist_lstm.runs.seeds import Summary

HELP = """\
How good a recipe is, apart from luck: it is trained with the seeds 0, 1, … N - 1, each as a DVC
experiment that leaves the workspace as it is, and their accuracies are given with mean, standard
deviation and the 95 % confidence interval of the mean (Student's t). With -S KEY=VALUE, a recipe
is tried with another value and need not be written down.

What was trained already is not trained again: an experiment on the present commit with the same
parameters and code, or a record of the same parameters. The column `code` says whether a record is
of the present code; --fresh trains all seeds anew. With --record DIR each seed leaves
DIR/seed-<n>.json and DIR/seed-<n>.csv (its curve) as it ends, small files for git, so that the
seeds can be spread over days and machines. A training that is stopped continues from its checkpoint
with the same command.

Exit code: 0 when all seeds are trained, 2 when one did not come to its end or the command is
wrong, 130 when it was stopped."""

FIGURES = (("validation", "accuracy"), ("test", "accuracy"), ("validation", "loss"))


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("seeds", metavar="N", type=count, help="how many seeds")
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        type=Path,
        default=Path("params.yaml"),
        help="a whole params.yaml, such as recipes/fast.yaml; its own seed is not used "
        "(default: params.yaml)",
    )
    parser.add_argument(
        "-S",
        "--set-param",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="train with another value than the recipe's, train.steps=500 say; may be repeated",
    )
    parser.add_argument("--record", metavar="DIR", type=Path, help="read and write records there")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="train every seed with the present code, whatever records and experiments there are",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object: records and summaries"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train the seeds one after the other, and print their statistics."""
    from mnist_lstm.pipeline import params, stage
    from mnist_lstm.runs import seeds

    root = stage.root()
    recipe, here = (
        params.flatten(found.model_dump())
        for found in (
            params.load(arguments.recipe, changes(arguments.set_param)),
            params.load(root / "params.yaml"),
        )
    )
    name = arguments.recipe.stem
    try:
        records = [
            seeds.seed_record(
                *(root, recipe | {"seed": seed}, here, name, arguments.record),
                fresh=arguments.fresh,
            )
            for seed in range(arguments.seeds)
        ]
    except KeyboardInterrupt:
        print("mnist-lstm seeds: stopped; the same command continues from there", file=sys.stderr)
        return 130
    summaries = {
        " ".join(names): seeds.summary([_figure(record, *names) for record in records])
        for names in FIGURES
    }
    if arguments.json:
        answer = {"records": records} | {name: vars(each) for name, each in summaries.items()}
        print(json.dumps(answer, indent=2))
    else:
        what = " -S ".join([str(arguments.recipe), *arguments.set_param])
        _print(what, records, summaries, seeds.code_digest(root))
    return 0


def changes(settings: Sequence[str]) -> dict[str, object]:
    """The values of texts `KEY=VALUE`, by key. Raises UserError for another text."""
    from mnist_lstm.pipeline import strict_yaml

    values = {}
    for setting in settings:
        key, is_there, text = setting.partition("=")
        if not is_there or not key:
            raise UserError(f"-S takes KEY=VALUE, such as train.steps=100, and is {setting!r}")
        values[key] = strict_yaml.parse(text, f"-S {key}")
    return values


def _figure(record: Mapping[str, Any], split: str, name: str) -> float:
    value: float = record["metrics"][split][name]
    return value


def _print(
    what: str,
    records: Sequence[Mapping[str, Any]],
    summaries: Mapping[str, "Summary"],
    code: str,
) -> None:
    from mnist_lstm.views.text_table import table, width

    titles = ["seed", "validation", "test", "steps", "seconds", "device", "code", "run"]
    rows = [
        [
            str(record["params"]["seed"]),
            f"{_figure(record, 'validation', 'accuracy'):.2%}",
            f"{_figure(record, 'test', 'accuracy'):.2%}",
            f"{record['params']['train.steps']:,}",
            f"{record['seconds']:,.0f}",
            record["device"],
            _code_of(record, code),
            record["name"],
        ]
        for record in records
    ]
    print(*table([titles, *rows], width(), right="rrrrr"), sep="\n")
    print(f"\n{what}, {len(records)} seed{'s' if len(records) > 1 else ''}:")
    for split in ("validation", "test"):
        print(f"{split:>10}  {format_summary(summaries[f'{split} accuracy'])}")
    if any(record.get("code") != code for record in records):
        print(
            "mnist-lstm seeds: not all are of the present code; --fresh trains them again with it",
            file=sys.stderr,
        )
    if len({record["device"] for record in records}) > 1:
        print("mnist-lstm seeds: not all on the same kind of device", file=sys.stderr)


def _code_of(record: Mapping[str, Any], code: str) -> str:
    """Whether a seed was trained with the code of that digest; the commit of other code."""
    if record.get("code") == code:
        return "as now"
    return f"of {(record['commit'] or 'no commit')[:9]}{', changed' if record['dirty'] else ''}"


def format_summary(summary: "Summary") -> str:
    """Mean, standard deviation and interval of accuracies, in a line."""
    if summary.deviation is None:
        return f"{summary.mean:.2%}; a spread takes two seeds"
    return (
        f"mean {summary.mean:.2%}, standard deviation {100 * summary.deviation:.2f} points, "
        f"95 % interval of the mean {summary.low:.2%} to {summary.high:.2%}"
    )
