"""Runs as TensorBoard, wandb, MLflow and Trackio have them, read by these libraries; and a Python without network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.phrases import file_name
from harness.tracking.tracked_run import TrackedRun
from tests.support.cli import PATIENCE, REPO

_GUARD = """
import socket
def refuse(*address, **options):
    with open({log!r}, "a") as log:
        print(address, file=log)
    raise OSError("the network is refused")
connect = socket.socket.connect
socket.socket.connect = lambda self, to: connect(self, to) if self.family == socket.AF_UNIX else refuse(to)
socket.getaddrinfo = refuse
open({mark!r}, "w").close()
"""
# Variables that the follower sets itself, or that keep MLflow from reporting its use in tests.
_OF_TOOLS = ("WANDB_", "MLFLOW_", "TRACKIO_", "HF_", "DO_NOT_TRACK", "PYTEST", "CI")


@dataclass(frozen=True)
class Shown:
    """A run as a tool shows it."""

    curves: dict[str, list[tuple[int, float]]]  # by tag
    state: str
    names: tuple[str, ...] = ()
    settings: dict[str, str] | None = None
    final: dict[str, float] | None = None


def follow(results: Path, runs: Iterable[TrackedRun], tools: Iterable[str], events: Path) -> None:
    """Run the follower for one round, without network, and check that it asked for none."""
    folder = events.parent / "guard"
    folder.mkdir(exist_ok=True)
    guard = {"log": str(folder / "asked"), "mark": str(folder / "mark")}
    (folder / "sitecustomize.py").write_text(_GUARD.format(**guard))
    command = [sys.executable, "-P", "-m", "harness.tracking.follower", results, ",".join(tools), events]
    ended = subprocess.run(
        list(map(str, command)),
        env={**{k: v for k, v in os.environ.items() if not k.startswith(_OF_TOOLS)}, "PYTHONPATH": f"{folder}:{REPO}"},
        input=json.dumps([asdict(run) for run in runs]) + "\n",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stdout
    assert (folder / "mark").exists() and not (folder / "asked").exists(), (folder / "asked").read_text()


def tensorboard_run(folder: Path) -> Shown:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    content = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    state = "running"
    if end := content.get(metadata.SESSION_END_INFO_TAG):
        status = metadata.parse_session_end_info_plugin_data(end).status
        state = "failed" if status == api_pb2.STATUS_FAILURE else "done"
    return Shown(curves, state, settings={name: str(value) for name, value in start.hparams.items()})


def wandb_run(tracking: Path, run: TrackedRun) -> Shown:
    from wandb.proto import wandb_internal_pb2

    (file,) = tracking.glob(f"wandb/{file_name(run.sweep)}/wandb/offline-run-*/run-{run.run_id}.wandb")
    rows, summary, first, code = [], {}, None, -1
    for content in _wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        first = first or (record.run if record.HasField("run") else None)
        if record.HasField("history"):
            rows.append(_wandb_items(record.history.item))
        summary |= _wandb_items(record.summary.update)
        code = record.exit.exit_code if record.HasField("exit") else code
    assert first is not None and first.run_id == run.run_id
    tags = {tag for row in rows for tag in row if tag != "epoch" and not tag.startswith("_")}
    curves = {tag: [(row["epoch"], row[tag]) for row in rows if tag in row] for tag in tags}
    settings = {item.key: item.value_json for item in first.config.update}
    assert (code == 0) == (summary["status"] == "done")
    names = (first.project, first.run_group, first.display_name)
    return Shown(curves, summary["status"], names, settings, summary)


def _wandb_items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a wandb file: a log as LevelDB's, in blocks of 32 kB, after a head of seven bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def mlflow_run(tracking: Path, run: TrackedRun) -> Shown:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tracking / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(run.sweep)
    (known,) = client.search_runs([experiment.experiment_id], f"tags.run_id = '{run.run_id}'")
    histories = {tag: client.get_metric_history(known.info.run_id, tag) for tag in known.data.metrics}
    curves = {tag: [(m.step, m.value) for m in history] for tag, history in histories.items()}
    states = {"RUNNING": "running", "FINISHED": "done", "FAILED": "failed"}
    assert states[known.info.status] == known.data.tags["status"]
    names = (known.data.tags["sweep"], known.data.tags["pair"], known.info.run_name)
    return _shown(curves, known.data.tags["status"], names, known.data.params)


def trackio_run(tracking: Path, run: TrackedRun) -> Shown:
    """Read a run. TRACKIO_DIR must have been set before Trackio is first imported."""
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (known,) = [known for known in trackio.Api().runs(run.sweep) if run.run_id[:8] in known.name]
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in SQLiteStorage.get_logs(run.sweep, known.name):
        for tag in row.keys() - {"step", "timestamp"}:
            curves.setdefault(tag, []).append((row["step"], row[tag]))
    state = "failed" if known.alerts() else "done" if "final/last_top1" in curves else "running"
    config = {name: str(value) for name, value in (known.config or {}).items()}
    names = (run.sweep, config["_Group"], known.name.rpartition(" (")[0])
    return _shown(curves, state, names, config)


def _shown(
    curves: dict[str, list[tuple[int, float]]], state: str, names: tuple[str, ...], settings: dict[str, str]
) -> Shown:
    """Return a run whose final numbers stand among its curves, once each."""
    final = {}
    for tag in [tag for tag in curves if tag.startswith("final/")]:
        ((_, final[tag.removeprefix("final/")]),) = curves.pop(tag)
    return Shown(curves, state, names, settings, final)
