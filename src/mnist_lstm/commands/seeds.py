"""Train a recipe with several seeds, and print mean and spread of their accuracies."""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import (
    add_recipe,
    changes,
    note,
    recipe_file,
    settings_of,
    show_groups,
    whole_number,
    writable_folder,
)

if TYPE_CHECKING:
    from mnist_lstm.runs.experiment import Train
    from mnist_lstm.runs.seeds import Summary

HELP = """\
Measure how good a recipe is, apart from luck: train it with the seeds 0, 1, … N - 1. Each training
is a DVC experiment, so the workspace stays as it is. The command prints the accuracies with their
mean, their standard deviation and the 95 % confidence interval of the mean (Student's t). With
-S KEY=VALUE you try another value without a new recipe file.

With --from K, the seeds are K, K + 1, … K + N - 1. A recipe that a search chose was the best with
the search's own seed, maybe by luck: leave that seed out.

A seed is not trained again if the present commit has an experiment with the same parameters and
code, or if the folder of --record has a record with the same parameters. The column `code` says
whether a record was made by the present code; --fresh trains all seeds again. With --record DIR,
each seed that ends writes DIR/seed-<n>.json and DIR/seed-<n>.csv (its curve). Commit these small
files, and you can spread the seeds over days and machines. In MLflow, the seeds are below a parent
run, which has the mean and its interval over the steps. If the command is stopped, the same
command continues from the checkpoint.

With --workers K, K seeds are trained at once. Each has the weights that it has alone, bit for bit.
This saves time where a training is short, as on a GPU: the imports and the evaluations of the seeds
then run at the same time. On a processor it takes about as long as one seed after another.

Exit code: 0 when all seeds are trained, 2 when a training did not finish or the command is
wrong, 130 when it was stopped."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("seeds", metavar="N", type=whole_number, help="how many seeds")
    add_recipe(parser, "a complete params.yaml, such as recipes/fast.yaml; its seed is not used")
    parser.add_argument(
        "--from",
        metavar="K",
        dest="first",
        type=partial(whole_number, least=0),
        default=0,
        help="the first seed (default: 0)",
    )
    parser.add_argument(
        "--record", metavar="DIR", type=writable_folder, help="folder of the records"
    )
    parser.add_argument(
        "--workers",
        metavar="K",
        type=whole_number,
        default=1,
        help="how many seeds to train at once (default: 1)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="train every seed with the present code, even if there are records or experiments",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object with records and summaries"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train the seeds, and print their statistics."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs import experiment, seeds
    from mnist_lstm.runs.recipes import FIGURES, JUDGED_BY

    root, changed = stage.root(), changes(arguments.set_param)
    if "seed" in changed:
        raise UserError("-S seed: each training has a seed of its own; --from K sets the first one")
    path = recipe_file(arguments, root)
    recipe, here = settings_of(path, changed), settings_of(root / "params.yaml")
    numbers = range(arguments.first, arguments.first + arguments.seeds)
    name, code, said = path.stem, experiment.code_digest(root), set[str]()

    def note_once(line: str) -> None:  # each seed reads all results
        if line not in said:
            said.add(line)
            note("seeds", line)

    def record_of(seed: int, train: "Train" = experiment.train) -> Mapping[str, Any]:
        return seeds.seed_record(
            *(root, recipe | {"seed": seed}, here, code, name, arguments.record),
            fresh=arguments.fresh,
            note=note_once,
            train=train,
        )

    def say_it_ended(record: Mapping[str, Any]) -> None:
        accuracies = [f"{split} {_figure(record, split, 'accuracy'):.2%}" for split in JUDGED_BY]
        note("seeds", f"seed {record['params']['seed']}: {', '.join(accuracies)}")

    try:
        if arguments.workers == 1:
            records = [record_of(seed) for seed in numbers]
        else:
            records = seeds.train_at_once(record_of, numbers, arguments.workers, say_it_ended)
    except KeyboardInterrupt:
        note("seeds", "stopped; the same command continues from there")
        return 130
    show_groups(root, "seeds")
    summaries = {
        " ".join(names): seeds.summary([_figure(record, *names) for record in records], names[-1])
        for names in FIGURES
    }
    if arguments.json:
        answer = {"records": records} | {name: vars(each) for name, each in summaries.items()}
        print(json.dumps(answer, indent=2))
    else:
        what = " -S ".join([str(path), *arguments.set_param])
        _print(what, records, summaries, code)
    return 0


def _figure(record: Mapping[str, Any], split: str, name: str) -> float:
    value: float = record["metrics"][split][name]
    return value


def _print(
    what: str,
    records: Sequence[Mapping[str, Any]],
    summaries: Mapping[str, "Summary"],
    code: str,
) -> None:
    from mnist_lstm.runs.recipes import JUDGED_BY
    from mnist_lstm.views.text_table import table, terminal_width

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
    print(*table([titles, *rows], terminal_width(), right="rrrrr"), sep="\n")
    print(f"\n{what}, {len(records)} seed{'s' if len(records) > 1 else ''}:")
    for split in JUDGED_BY:
        print(f"{split:>10}  {format_summary(summaries[f'{split} accuracy'])}")
    if any(record.get("code") != code for record in records):
        note("seeds", "not all seeds were trained by the present code; --fresh trains them again")
    if len({record["device"] for record in records}) > 1:
        note("seeds", "the seeds ran on different kinds of device")


def _code_of(record: Mapping[str, Any], code: str) -> str:
    """Whether the code with this digest trained the seed; otherwise, the commit that did."""
    if record.get("code") == code:
        return "as now"
    return f"of {(record['commit'] or 'no commit')[:9]}{', changed' if record['dirty'] else ''}"


def format_summary(summary: "Summary") -> str:
    """Format mean, standard deviation and interval of accuracies as one line."""
    if summary.deviation is None:
        return f"{summary.mean:.2%}; a standard deviation needs two seeds"
    return (
        f"mean {summary.mean:.2%}, standard deviation {100 * summary.deviation:.2f} points, "
        f"95 % interval of the mean {summary.low:.2%} to {summary.high:.2%}"
    )
