"""The parent runs in MLflow: one for the seeds of a recipe, one for the trials of a search.

A parent is made from the results, as other runs are, and has a digest of all that it shows. Where
the results have changed since, it is deleted and made again, because MLflow cannot change a metric.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mnist_lstm.tracking.store import NOTE, Store, one_process
from mnist_lstm.tracking.stored_runs import GROUP, StoredRun, all_runs, artifact
from mnist_lstm.tracking.tracked_run import BATCH

DIGEST = "digest"  # a tag, which is written last: a parent without it is incomplete
MEMBERS = "members"  # a tag: the starts of the ids of the trainings that the figures are of
SHOWN = 10  # significant digits: the last ones depend on the version of a library
STATE = "FINISHED"


@dataclass(frozen=True)
class Parent:
    """What MLflow shows of trainings that belong together.

    `key` is the same for the same trainings, whoever looks. Times are in milliseconds. `points` are
    the values of metrics by name and step. `members` are the ids of the trainings that they are of;
    `children` are those of the runs below the parent, and `experiments` names further ones by their
    DVC experiment. `pictures` are artifacts that are drawn only if they are missing.
    """

    key: str
    name: str
    note: str
    started: int
    ended: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Mapping[tuple[str, int], float]
    files: Mapping[str, bytes]
    members: frozenset[str]
    children: frozenset[str]
    experiments: frozenset[str] = frozenset()
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[Metric]:
        """The points as MLflow has them."""
        return [
            Metric(key, float(f"{value:.{SHOWN}g}"), self.ended, step)
            for (key, step), value in self.points.items()
        ]

    @property
    def digest(self) -> str:
        """The digest of all that the parent shows, but of its name, note, times and pictures.

        The times are those of the results that are here, and each clone has other ones.
        """
        shown = [
            *(dict(self.params), dict(self.tags)),
            [(each.key, each.step, each.value) for each in self.metrics],
            {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()},
        ]
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()

    @property
    def latest(self) -> dict[str, float]:
        """The last value of each metric."""
        return {each.key: each.value for each in sorted(self.metrics, key=lambda each: each.step)}

    @property
    def ids(self) -> str:
        """The value of the tag MEMBERS."""
        return " ".join(sorted(each[:8] for each in self.members))


class Parents:
    """The parent runs in a store, compared with what they are to be."""

    def __init__(self, store: Store) -> None:
        """Read all runs. Raises TrackingError."""
        self.store = store
        self._parents: dict[str, list[StoredRun]] = {}
        self._trainings: list[StoredRun] = []
        with store.errors():
            for run in all_runs(store):
                if key := run.data.tags.get(GROUP):
                    self._parents.setdefault(key, []).append(run)
                else:
                    self._trainings.append(run)

    def lines(self, parent: Parent) -> list[str]:
        """A line for each difference between a parent and its run. Raises TrackingError."""
        with self.store.errors():
            found = self._parents.get(parent.key, [])
            if not found:
                return ["it has no parent run"]
            first, *others = found
            lines = [f"it has a second parent run, {each.info.run_id}" for each in others]
            if self._is_outdated(first, parent):
                return [*lines, "its parent run differs from the results"]
            lacks = self._missing(first, parent)
            lines += [f"its parent run lacks {name}" for name in lacks]
            count = len(self._strays(first.info.run_id, parent))
            return lines + ([f"{count} of its runs are not below its parent run"] if count else [])

    def show(self, parent: Parent) -> list[str]:
        """Make the run of a parent equal to it; returns a line for each difference.

        A run that differs is deleted and made again, with the name and the notes that people gave
        it. Raises TrackingError.
        """
        if not (lines := self.lines(parent)):
            return []
        with self.store.errors(), one_process(self.store.lock):
            client = self.store.client
            found = all_runs(self.store, f"tags.`{GROUP}` = '{parent.key}'")
            first = next(iter(found), None)
            former = {each.info.run_id for each in found[1:]}
            if first is None or self._is_outdated(first, parent):
                former |= {first.info.run_id} if first else set()
                made = self._make(parent, first)
            else:
                made = first
            self._add(made, parent, self._missing(made, parent))
            for run in self._strays(made.info.run_id, parent, former):
                client.set_tag(run.info.run_id, MLFLOW_PARENT_RUN_ID, made.info.run_id)
                run.data.tags[MLFLOW_PARENT_RUN_ID] = made.info.run_id
            for run_id in former:
                client.delete_run(run_id)
            self._parents[parent.key] = [client.get_run(made.info.run_id)]
        return lines

    def _make(self, parent: Parent, before: StoredRun | None) -> StoredRun:
        client = self.store.client
        tags = {**parent.tags, GROUP: parent.key, MEMBERS: parent.ids, NOTE: parent.note}
        name = parent.name
        if before and (edited := _edits(before)):
            name = edited.pop("name", name)
            tags |= edited
        run = client.create_run(
            self.store.experiment_id, start_time=parent.started, tags=tags, run_name=name
        )
        run_id, metrics = run.info.run_id, parent.metrics
        client.log_batch(run_id, params=[Param(*each) for each in parent.params.items()])
        for start in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + BATCH])
        self._add(run, parent, [*parent.files, *parent.pictures])
        made = {"made.name": parent.name, "made.note": _short(parent.note), DIGEST: parent.digest}
        client.log_batch(run_id, tags=[RunTag(*each) for each in made.items()])
        client.set_terminated(run_id, STATE, parent.ended)
        return client.get_run(run_id)

    def _add(self, run: StoredRun, parent: Parent, names: Iterable[str]) -> None:
        """Log files and pictures of a parent to its run."""
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                content = parent.files[name] if name in parent.files else parent.pictures[name]()
                path = Path(folder, name)
                path.write_bytes(content)
                self.store.client.log_artifact(run.info.run_id, str(path))

    def _is_outdated(self, run: StoredRun, parent: Parent) -> bool:
        """Whether a run shows another state of the results than the parent.

        One that shows at least as many trainings, some of them of another machine, is kept.
        """
        tags, theirs = run.data.tags, set(run.data.tags.get(MEMBERS, "").split())
        ours = set(parent.ids.split())
        is_whole = DIGEST in tags and run.info.status == STATE
        if is_whole and theirs - ours and len(theirs) >= len(ours):
            return False
        return not is_whole or (tags[DIGEST], dict(run.data.params), dict(run.data.metrics)) != (
            parent.digest,
            dict(parent.params),
            parent.latest,
        )

    def _missing(self, run: StoredRun, parent: Parent) -> list[str]:
        """The files and pictures that a run lacks; none if it is another machine's."""
        if run.data.tags.get(DIGEST) != parent.digest:
            return []
        there = {each.path for each in self.store.client.list_artifacts(run.info.run_id)}
        return [
            *(name for name in parent.pictures if name not in there),
            *(
                name
                for name, content in parent.files.items()
                if name not in there or artifact(self.store, run, name) != content
            ),
        ]

    def _strays(self, run_id: str, parent: Parent, former: Collection[str] = ()) -> list[StoredRun]:
        """The runs of children that are not below the parent, and those below a former one."""
        return [
            run
            for run in self._trainings
            if (above := run.data.tags.get(MLFLOW_PARENT_RUN_ID)) != run_id
            and (
                run.data.tags.get("training_id") in parent.children
                or run.data.tags.get("dvc_experiment") in parent.experiments
                or (above and above in former)
            )
        ]


def _edits(run: StoredRun) -> dict[str, str]:
    """The name and the note that people gave a run."""
    tags, edits = run.data.tags, {}
    if (made := tags.get("made.name")) and run.info.run_name != made:
        edits["name"] = str(run.info.run_name)
    if "made.note" in tags and _short(tags.get(NOTE, "")) != tags["made.note"]:
        edits[NOTE] = tags.get(NOTE, "")
    return edits


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
