"""MLflow and the results side by side: where they disagree, and how that is mended."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from mnist_lstm import UserError, dvc_cache
from mnist_lstm.runs import champions
from mnist_lstm.runs.elsewhere import how_to_get, is_elsewhere
from mnist_lstm.runs.groups import parents
from mnist_lstm.runs.history import History, Result
from mnist_lstm.runs.pruned import pruned
from mnist_lstm.runs.unfinished import is_held, unfinished
from mnist_lstm.tracking import handover, registry
from mnist_lstm.tracking.differences import differences, lacks_of_pruned
from mnist_lstm.tracking.follower import trainer
from mnist_lstm.tracking.overview import Overview, of_server
from mnist_lstm.tracking.parents import Parents
from mnist_lstm.tracking.projection import project, project_pruned, second_run
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.stored_runs import TRAINER, StoredRun, mark_killed, runs
from mnist_lstm.tracking.view import View


@dataclass(frozen=True)
class Disagreement:
    """A training about which MLflow and the results disagree: name, training_id, a line each.

    It may also be about a group of trainings, which has no id, or a version of the model.

    `mend` resolves it; None where nothing can. `note`: nothing is wrong, it was made elsewhere,
    or is an earlier decision about a champion whose results are lost.
    """

    name: str
    training_id: str
    lines: list[str]
    mend: Callable[[], object] | None
    note: bool = False


def disagreements(store: Store, history: History, root: Path) -> Iterator[Disagreement]:
    """Disagreements about each result, about each run in MLflow that has no result, and the rest.

    A run in progress is none: DVC records its result when its stages are done. A run that was made
    elsewhere, whose results are not here, is a note. Raises TrackingError.
    """
    known = {result.record.training_id for result in history.results}
    with store.errors():
        every = runs(store)
        overview = of_server(store, every)
        stored: dict[str, list[StoredRun]] = {}
        for run in every:
            stored.setdefault(run.data.tags.get("training_id", ""), []).append(run)
    may_be_mended = False  # by whoever takes them from here
    for result in history.results:
        its = stored.get(result.record.training_id, [])
        for disagreement in _of_result(store, history, result, its, overview):
            may_be_mended |= disagreement.mend is not None
            yield disagreement
    dvc_works = dvc_cache.is_at_work(root)
    at_work = {each.record.training_id: each.at_work for each in unfinished(root / ".checkpoints")}
    for training_id in stored:
        for run in stored[training_id] if training_id not in known else []:
            tags, name = run.data.tags, run.data.tags.get("name", run.info.run_name)
            elsewhere = is_elsewhere(tags, root, store.uri)
            if elsewhere and run.info.status == "FINISHED":
                yield Disagreement(name, training_id, [how_to_get(tags, root)], None, note=True)
            elif elsewhere:
                pass  # its process and its checkpoints cannot be seen; its maker's `verify` knows
            elif run.info.status == "RUNNING" and not _is_at_work(run, root):
                line = "it is marked as running, but no process trains it"
                yield from _killed(store, run, root, line)
            elif run.info.status == "FINISHED" and not (dvc_works or at_work.get(training_id)):
                if training_id in at_work:
                    line = "it is marked as finished, but was stopped before DVC recorded it"
                    yield from _killed(store, run, root, line)
                else:
                    line = "no result here has its model"
                    yield Disagreement(name, training_id, [line], None)
    for each in pruned(root):
        shown = each.training.about
        if lines := lacks_of_pruned(store, each.training, each.why, overview):
            mend = partial(project_pruned, store, each.training, each.status, each.why)
            yield Disagreement(shown.name, shown.training_id, lines, mend)
    yield from _of_groups(store, history)
    yield from _of_champion(store, root)
    for version in registry.outdated(store, None if may_be_mended else every):
        yield Disagreement(
            version.entrant.name,
            version.training_id,
            [f"{version.title} is of a run that was made again"],
            partial(registry.renew, store, version),
        )


def view(history: History, result: Result) -> View:
    """What MLflow is to show of a result. Raises UserError where a file of it is damaged."""
    with history.laid_out(result.training, *result.evaluations) as (training, *evaluations):
        return View.read(training, evaluations)


def _of_result(
    store: Store,
    history: History,
    result: Result,
    stored: list[StoredRun],
    overview: Overview | None,
) -> Iterator[Disagreement]:
    name, training_id = result.name, result.record.training_id
    try:
        expected = view(history, result)
    except UserError as error:
        yield Disagreement(name, training_id, [str(error)], None)
        return
    lines = ["it has no run"]
    if stored:
        lines = differences(store, stored[0], expected, overview).lines()
    if lines := [*lines, *map(second_run, stored[1:])]:
        yield Disagreement(name, training_id, lines, partial(project, store, expected))


def _of_groups(store: Store, history: History) -> Iterator[Disagreement]:
    """Disagreements about the parents of seeds and of trials."""
    if groups := parents(history):
        shown = Parents(store)
        for each in groups:
            if lines := shown.lines(each):
                yield Disagreement(each.name, "", lines, partial(shown.show, each))


def _of_champion(store: Store, root: Path) -> Iterator[Disagreement]:
    """What the registry lacks of the decisions in git, and git of one that was interrupted."""
    pending = [] if champions.is_being_made(root) else champions.read(root, champions.PENDING)
    for each in pending:
        name, training_id = each.entrant.name, each.entrant.training_id
        line = f"its {each.what} of {each.note['at']} was interrupted"
        settle = partial(champions.settle, root, partial(handover.was_made, store))
        yield Disagreement(name, training_id, [line], settle)
    decisions = champions.read(root)
    restore = cache(partial(handover.restore, store, decisions))  # one call restores all of them
    for lack in handover.lacking(store, decisions):
        entrant, mend = lack.decision.entrant, restore if lack.is_here else None
        yield Disagreement(entrant.name, entrant.training_id, [lack.line], mend, note=lack.is_past)


def _killed(store: Store, run: StoredRun, root: Path, line: str) -> Iterator[Disagreement]:
    """Nothing if the run has ended or goes on since it was read; the mend looks once more."""

    def mend() -> None:
        if now := _unchanged(store, run, root):
            mark_killed(store, now)

    if _unchanged(store, run, root):
        tags = run.data.tags
        name, training_id = tags.get("name", run.info.run_name), tags.get("training_id", "")
        yield Disagreement(name, training_id, [line], mend)


def _unchanged(store: Store, run: StoredRun, root: Path) -> StoredRun | None:
    """The run as it is now, if it has the state that it had and no process trains it."""
    with store.errors():
        now = store.client.get_run(run.info.run_id)
    before = (run.info.status, run.info.lifecycle_stage)
    is_same = (now.info.status, now.info.lifecycle_stage) == before
    return now if is_same and not _is_at_work(now, root) else None


def _is_at_work(run: StoredRun, root: Path) -> bool:
    """Whether a process trains the run; one on another machine is assumed to be at work."""
    tags = run.data.tags
    host, _, lock = tags.get(TRAINER, trainer(root, tags.get("fingerprint", ""))).partition(":")
    return host != platform.node() or is_held(Path(lock))
