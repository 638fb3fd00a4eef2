"""What a tracking server has of many runs, in few requests: a metric of all runs, all models.

A server behind a slow line answers a request in a second. So all that can be asked for at once is,
and nothing twice.
"""

import json
from collections.abc import Sequence
from functools import cached_property

from mlflow.entities import LoggedModel, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mnist_lstm.tracking.store import Store, all_pages, is_server
from mnist_lstm.tracking.view import Point

# MLflow's pages draw their charts from it; get_metric_history has one metric of one run
BULK = "/api/2.0/mlflow/metrics/get-history-bulk-interval"
RUNS = 100  # of one request: the server's limit
POINTS = 2500  # of a metric of a run: above this number, the server leaves some out


def of_server(store: Store, runs: Sequence[Run]) -> "Overview | None":
    """What a tracking server has of these runs; None for a database, which answers at once."""
    return Overview(store, runs) if is_server(store.uri) else None


class Overview:
    """The points and the models of some runs of a server. Its methods raise MlflowException."""

    def __init__(self, store: Store, runs: Sequence[Run]) -> None:
        """Nothing is asked for before it is needed."""
        self._store, self._runs = store, runs
        self._histories: dict[str, dict[str, list[Metric]]] = {}

    def metrics(self, run: Run, expected: Sequence[Point]) -> list[Metric]:
        """The points of all metrics of a run.

        Of a metric with one expected point, which the run has as its last one, only this point: the
        run itself has it.
        """
        found: list[Metric] = []
        for last in run.data._metric_objs:
            points = [point for point in expected if point[0] == last.key]
            if points == [(last.key, last.step, last.timestamp)]:
                found.append(last)
            else:
                found += self._history(last.key).get(run.info.run_id, [])
        return found

    def model(self, run: Run, model_sha256: str) -> LoggedModel | None:
        """The logged model of a run with these weights; None if there is none."""
        for model in self._models:
            is_of_run = model.source_run_id == run.info.run_id
            if is_of_run and model.tags.get("model_sha256") == model_sha256:
                return model
        return None

    @cached_property
    def _models(self) -> list[LoggedModel]:
        search, where = self._store.client.search_logged_models, [self._store.experiment_id]
        return all_pages(lambda token: search(where, page_token=token))

    def _history(self, key: str) -> dict[str, list[Metric]]:
        """All points of a metric, by run."""
        if key not in self._histories:
            having = [run.info.run_id for run in self._runs if key in run.data.metrics]
            found: dict[str, list[Metric]] = {run_id: [] for run_id in having}
            for start in range(0, len(having), RUNS):
                for point in self._asked(key, having[start : start + RUNS]):
                    found[point["run_id"]].append(
                        Metric(
                            key,
                            float(point["value"]),  # a text where it is not finite
                            int(point["timestamp"]),
                            int(point.get("step", 0)),
                        )
                    )
            for run_id, points in found.items():
                if not points or len(points) >= POINTS:
                    found[run_id] = list(self._store.client.get_metric_history(run_id, key))
            self._histories[key] = found
        return self._histories[key]

    def _asked(self, key: str, run_ids: Sequence[str]) -> list[dict[str, str]]:
        """The server's answer; empty from a server that does not know the question."""
        question = {"run_ids": run_ids, "metric_key": key, "max_results": POINTS}
        creds = get_default_host_creds(self._store.uri)
        try:
            answer = http_request(creds, BULK, "GET", params=question)
            return list(json.loads(verify_rest_response(answer, BULK).text).get("metrics", []))
        except MlflowException as error:
            if error.get_http_status_code() != 404:
                raise
            return []
