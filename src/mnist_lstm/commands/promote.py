"""Make a run's model the champion, if it is better than the present champion."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import RUN, note, open_store, read_history, say
from mnist_lstm.tracking.entrant import MODEL
from mnist_lstm.views.text_table import escaped, folded, terminal_width

if TYPE_CHECKING:
    from mnist_lstm.runs.history import History
    from mnist_lstm.tracking.entrant import Decision, Entrant
    from mnist_lstm.tracking.registry import Version
    from mnist_lstm.tracking.store import Store

HELP = f"""\
Register the run's model as a version of {MODEL} in MLflow's model registry. The same weights never
become a second version. Then move the alias `champion` to this version, if the model classifies
more validation images correctly than the present champion, by more than promote.margin of
params.yaml. Otherwise the promotion is refused, and both accuracies are printed. The accuracy on
test images is not used. `models:/{MODEL}@champion` loads the champion, and `make serve` serves it.

{RUN}

A model that was evaluated on other validation images than the champion (another data set or split)
cannot be compared with it. To promote such a model, or a worse one, give a reason: --force
--because "the reason". The reason and the accuracies of each promotion are tags of the version.
--rollback goes back to the previous champion; a second call goes back to the one before that.

champions.jsonl gets a line for each promotion and each return. Commit this file: others then see in
git who is the champion and why, and `mnist-lstm sync` makes MLflow's registry anew from it.

Exit code: 0 when the model is the champion now (with --dry-run: when it would be), 1 when the
promotion is refused or there is no previous champion, 2 when the command is wrong, a RUN fits no
run or several, or the MLflow store cannot be reached."""

NEXT = "Next: `mnist-lstm predict PICTURE`, or `make serve`; --rollback goes back."


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run_name", metavar="RUN", nargs="?", help="the run to promote")
    parser.add_argument("--rollback", action="store_true", help="go back to the previous champion")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing: only say what would happen, with the same exit code",
    )
    parser.add_argument(
        "--force", action="store_true", help="promote without a comparison; needs --because"
    )
    parser.add_argument(
        "--because", metavar="REASON", help="the reason, which is recorded; --force needs one"
    )


def run(arguments: argparse.Namespace) -> int:
    """Promote the run's model if it beats the champion; with --rollback, go back."""
    _check(arguments)
    return _roll_back(arguments) if arguments.rollback else _promote(arguments)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.run_name) == arguments.rollback:
        raise UserError("name a RUN or write --rollback; `mnist-lstm runs` lists the runs")
    if arguments.because is not None and not arguments.because.strip():
        raise UserError("--because is empty; write the reason: it is recorded")
    if arguments.force and arguments.rollback:
        raise UserError("--rollback needs no --force; leave --force out")
    if arguments.force and not arguments.because:
        raise UserError('--force needs a reason, and records it: --because "…"')


def _promote(arguments: argparse.Namespace) -> int:
    from mnist_lstm.pipeline import stage
    from mnist_lstm.pipeline.params import load
    from mnist_lstm.runs import champions
    from mnist_lstm.runs.promotion import decide, entrant_of, have_the_same_images
    from mnist_lstm.runs.resolve import find
    from mnist_lstm.tracking.entrant import Decision

    root = stage.root()
    margin = load(root / "params.yaml").promote.margin
    say("promote", "reading the results")
    history = read_history(root, "promote")
    result = find(history, arguments.run_name)
    entrant = entrant_of(history, result)

    from mnist_lstm.runs.audit import view
    from mnist_lstm.tracking import (  # takes seconds: only for a run that can be promoted
        handover,
        registry,
    )
    from mnist_lstm.tracking.projection import project

    store = open_store(root, "promote")
    was_made = partial(handover.was_made, store)
    if not arguments.dry_run:
        champions.settle(root, was_made)
    champion = registry.champion(store)
    decisions = champions.read(root)
    is_behind = _is_behind(store, decisions, arguments)
    if champion and champion.model_sha256 == entrant.model_sha256 and not is_behind:
        print(f"{entrant.name} is already the champion, {champion.title}")
        return 0
    defender, same_images = None, False
    if champion:
        defender, params = _now(history, champion), registry.params(store, champion)
        same_images = have_the_same_images(result, defender, params)
    decision = decide(entrant, defender, margin, same_images=same_images)
    promotes = decision.promotes or arguments.force
    version = None
    if not arguments.dry_run:
        say("promote", "comparing the run in MLflow with its results, and registering its model")
        project(store, view(history, result))
        version = registry.register(store, entrant)
        if promotes:
            notes = _notes(store, decisions, arguments, why=decision.why, margin=margin)
            notes["validation_accuracy"] = entrant.validation_accuracy
            if champion and defender:
                notes["instead_of"] = champion.number
                notes["its_validation_accuracy"] = defender.validation_accuracy
            with champions.pending(root, Decision("promotion", entrant, notes), was_made):
                handover.promote(store, version, champion, notes)
    _report(entrant, version, promotes, decision.why, arguments)
    return 0 if promotes else 1


def _is_behind(
    store: "Store", decisions: "Sequence[Decision]", arguments: argparse.Namespace
) -> bool:
    """Whether the registry lacks the last decision, so that its champion is not the present one.

    Raises UserError, but not with --force, which compares with no champion.
    """
    from mnist_lstm.tracking import handover

    is_behind = handover.is_behind(store, decisions)
    if is_behind and not arguments.force:
        name = decisions[-1].entrant.name
        raise UserError(
            f"by champions.jsonl, {name} is the champion, but not in MLflow's registry: "
            "`mnist-lstm sync` restores it there; if its results are lost, promote a run with "
            '--force --because "…"'
        )
    return is_behind


def _now(history: "History", champion: "Version") -> "Entrant":
    """The champion as its results have it now; if they are gone, as its version's tags have it."""
    from mnist_lstm.runs.promotion import entrant_of

    for result in history.results:
        if result.record.training_id == champion.training_id and result.evaluations:
            return entrant_of(history, result)
    return champion.entrant


def _report(
    entrant: "Entrant",
    version: "Version | None",
    promotes: bool,
    why: str,
    arguments: argparse.Namespace,
) -> None:
    """Print what was done, or with --dry-run would be done, and the accuracies."""
    if promotes:
        what = f"is the champion now, {version.title}" if version else "would be the champion"
        forced = f"; with --force, because: {arguments.because.strip()}" if arguments.force else ""
        for line in (f"{entrant.name} {what}", f"{why}{forced}"):
            print(folded(escaped(line), terminal_width()))
        print(NEXT if version else "Next: the same command without --dry-run.")
        return
    what = f"is {version.title}, but not the champion" if version else "would not be promoted"
    hint = 'to promote it anyway: --force --because "…"'
    note("promote", f"{entrant.name} {what}: {why}; {hint}")


def _roll_back(arguments: argparse.Namespace) -> int:
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs import champions
    from mnist_lstm.tracking import handover, registry
    from mnist_lstm.tracking.entrant import Decision

    root = stage.root()
    store = open_store(root, "promote")
    was_made = partial(handover.was_made, store)
    if not arguments.dry_run:
        champions.settle(root, was_made)
    _is_behind(store, decisions := champions.read(root), arguments)
    left, back = registry.champion(store), handover.former(store)
    notes = _notes(store, decisions, arguments)
    if back and not arguments.dry_run:
        with champions.pending(root, Decision("return", back.entrant, notes), was_made):
            handover.roll_back(store, notes, back)
    since = f" before {left.entrant.name}, {left.title}" if left else ""
    if back is None:
        before = since and f"{since},"
        note("promote", f"there was no champion{before} to go back to")
        return 1
    what = "would be the champion" if arguments.dry_run else "is the champion"
    name = escaped(back.entrant.name)
    print(f"{name} {what} again, {back.title}, as{escaped(since) or ' it was'}")
    return 0


def _notes(
    store: "Store", decisions: "Sequence[Decision]", arguments: argparse.Namespace, **more: Any
) -> dict[str, Any]:
    """The note about a promotion or a return, which becomes a tag of the version.

    `decisions` are those of champions.jsonl. Raises TrackingError.
    """
    from mnist_lstm.pipeline import stage
    from mnist_lstm.pipeline.provenance import Origin
    from mnist_lstm.runs.champions import time_after
    from mnist_lstm.tracking import handover

    origin = Origin.here(stage.root())
    reason = {"because": arguments.because.strip()} if arguments.because else {}
    forced = {"forced": True} if arguments.force else {}
    at = time_after([*handover.times(store), *(str(each.note["at"]) for each in decisions)])
    return {"at": at, "by": origin.user, "host": origin.host} | reason | forced | more
