"""MLflow: a run of an experiment for each run of a sweep, in a local SQLite database, without a server."""

import os
import posixpath
import re
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from harness.store import files
from harness.tracking.tracked_run import Key, Point, RunFacts, State, TrackedRun

_STATUS = {State.DONE: "FINISHED", State.DIVERGED: "FINISHED", State.FAILED: "FAILED"}
_LONGEST = 500  # characters of a parameter that every version of MLflow takes
_LONGEST_NAME = 250  # characters of a metric's name
_MOST = 100  # parameters and metrics of one call


class MLflow:
    """The runs of a database, by the tag ``run_id``."""

    def __init__(self, client: Any, artifacts: Path):
        self.client, self.artifacts = client, artifacts
        self._experiments: dict[str, str] = {}
        self._runs: dict[TrackedRun, str] = {}  # MLflow's own ids

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key] | None:
        experiment = self._experiment(run.sweep)
        known = self.client.search_runs([experiment], f"tags.run_id = '{run.run_id}'")
        if not known:
            self._create(run, facts, experiment)
            return set()
        self._runs[run] = known[0].info.run_id
        if known[0].data.tags.get("status") == facts.state and facts.has_ended:
            return None
        self.client.update_run(self._runs[run], status="RUNNING")
        self.client.set_tag(self._runs[run], "status", "running")
        tags = known[0].data.metrics
        held = {(m.step, m.key) for tag in tags for m in self.client.get_metric_history(self._runs[run], tag)}
        return {(p.epoch, p.tag) for p in facts.points if (p.epoch, metric_name(p.tag)) in held}

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        metrics = iter([Metric(metric_name(p.tag), p.value, int(1000 * p.at), p.epoch) for p in points])
        while part := list(islice(metrics, _MOST)):
            self.client.log_batch(self._runs[run], metrics=part)

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        mlflow_id = self._runs.pop(run)
        if not facts.has_ended:
            return
        self.client.set_tag(mlflow_id, "status", facts.state)
        if facts.cause:
            self.client.set_tag(mlflow_id, "cause", facts.cause[:_LONGEST])
        ended = max((point.at for point in facts.points), default=time.time())
        self.client.set_terminated(mlflow_id, _STATUS[facts.state], int(1000 * ended))

    def _experiment(self, sweep: str) -> str:
        if sweep not in self._experiments:
            known = self.client.get_experiment_by_name(sweep)
            place = (self.artifacts / sweep).as_uri()
            self._experiments[sweep] = known.experiment_id if known else self.client.create_experiment(sweep, place)
        return self._experiments[sweep]

    def _create(self, run: TrackedRun, facts: RunFacts, experiment: str) -> None:
        from mlflow.entities import Param

        tags = {"run_id": run.run_id, "sweep": run.sweep, "pair": run.group, "method": run.method, "status": "running"}
        made = self.client.create_run(experiment, int(1000 * facts.started), tags, run.label)
        self._runs[run] = made.info.run_id
        settings = iter([Param(name, str(value)[:_LONGEST]) for name, value in facts.settings.items()])
        while part := list(islice(settings, _MOST)):
            self.client.log_batch(self._runs[run], params=part)


def metric_name(tag: str) -> str:
    """Return a name that MLflow takes: a method's first stage may name its terms as it likes."""
    return posixpath.normpath(re.sub(r"[^\w.\- :/]|\.\.", "_", tag))[:_LONGEST_NAME]


def make(folder: Path) -> MLflow:
    """Return the tracker whose database is in a folder."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}  # it would ask a server what to send
    from mlflow.tracking import MlflowClient

    database = folder / "mlflow.db"
    if set("?#%") & set(str(folder)):  # signs of addresses: the database would lie elsewhere, or be tried for minutes
        raise ValueError(f"{folder}: MLflow takes no ?, # and % in the name of a folder")
    if not database.exists():  # made whole or not at all: MLflow goes on with no half of its tables
        files.write_once(database, lambda path: MlflowClient(f"sqlite:///{path}"))
    return MLflow(MlflowClient(f"sqlite:///{database}"), folder / "mlflow-artifacts")
