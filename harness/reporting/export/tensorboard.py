"""Runs as event files for TensorBoard, from their records: the same record gives the same bytes. Imports no torch."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.phrases import file_name
from harness.reporting.comparison import Contents
from harness.spec.lines import grouped
from harness.spec.lr_schedule import learning_rate
from harness.spec.science import Science, recipe_json
from harness.store import files, record_stream
from harness.store.store import Store

_LISTED = ("dataset", "teacher", "student", "method", "seed")  # hyper-parameters besides those of method and recipe
FILE_VERSION = "brain.Event:2"
_OWN_FILE = re.compile(r"events\.out\.tfevents\.\d+\.[0-9a-f]{16}")
_COLUMNS = ("run_id", *_LISTED, "science", "curves", "started_at", "finished_at")


def event_folders(contents: Contents) -> dict[str, str]:
    """Return folder -> run, for every cell of a sweep and every teacher that it trains."""
    students = {
        f"{contents.name}/{file_name(c.teacher)}-{file_name(c.student)}/{file_name(c.method)}/seed-{c.seed}": c.run_id
        for c in contents.cells
    }
    return students | {
        f"{contents.name}/teachers/{file_name(c.teacher)}": c.teacher_run for c in contents.cells if c.teacher_run
    }


def write_event_files(store: Store, shown: Mapping[str, str], folder: Path) -> list[Path]:
    """Write an event file for each run that has a record, in a folder of its own.

    ``shown``: path below ``folder`` -> run. The file has the record's curves, the learning rate, and the
    settings as text and as hyper-parameters.

    Raises:
        UserError: no run has a record, one is damaged, or the package tensorboard is missing.
    """
    places = grouped(shown, lambda place: shown[place])
    written: dict[str, Path] = {}
    for rows in record_stream.stream_records(store, places, _COLUMNS):
        for i, run_id in enumerate(rows.column("run_id").to_pylist()):  # a run's points are many objects of Python
            (row,) = rows.slice(i, 1).to_pylist()
            written |= {place: _write(row, folder / place) for place in places[run_id]}
    if not written:
        raise UserError("--tensorboard: no run has a record yet")
    return [written[place] for place in shown if place in written]


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[int, str, float]]:
    """Yield (epoch, tag, value) by epoch: a record's curves and the learning rate.

    Tags are the curves' names with the first part for a section: ``train/ce``, ``test/top1``, ``test/AP``.
    """
    recipe = Science.from_text(row["science"]).recipe
    points = [(point["epoch"], point["name"].replace("_", "/", 1), point["value"]) for point in row["curves"]]
    # The first stage, whose epochs end with 0, may have a learning rate that the method sets.
    epochs = {epoch for epoch, _, _ in points if epoch > 0}
    points += [(epoch, "train/lr", learning_rate(recipe, epoch - 1)) for epoch in epochs]
    yield from sorted(points, key=lambda point: point[:2])


def event(wall_time: float, step: int = 0, **content: Any) -> bytes:
    """Return an event as its file has it; ``content``: a field of TensorBoard's ``Event``."""
    from tensorboard.compat.proto.event_pb2 import Event

    serialized: bytes = Event(wall_time=wall_time, step=step, **content).SerializeToString(deterministic=True)
    return serialized


def scalar(wall_time: float, epoch: int, tag: str, value: float) -> bytes:
    """Return the event of a point of a curve."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return event(wall_time, epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def file_of_events(folder: Path, second: int, run_id: str) -> Path:
    """Return the name of a run's event file. TensorBoard reads those of a folder in the order of their names."""
    return folder / f"events.out.tfevents.{second}.{file_name(run_id)}"


def _write(row: dict[str, Any], folder: Path) -> Path:
    try:
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboard: pip install 'kd-harness[tensorboard]'") from None
    science = Science.from_text(row["science"])
    started, ended = (row[name].timestamp() for name in ("started_at", "finished_at"))
    events = [event(started, file_version=FILE_VERSION)]
    start = session_start(started, hyper_parameters(row, science))
    summaries = (settings(row["run_id"], science), start, session_end(ended, has_failed=False))
    events += [event(started, summary=summary) for summary in summaries]
    events += [scalar(ended, *point) for point in scalars(row)]  # a record does not say when an epoch ended
    path = file_of_events(folder, int(ended), row["run_id"])

    def write_events(temporary: Path) -> None:
        with temporary.open("wb") as file:
            writer = RecordWriter(file)
            for serialized in events:
                writer.write(serialized)

    files.replace(path, write_events, durable=False)
    remove_other_events(folder, path)
    return path


def remove_other_events(folder: Path, *kept: Path) -> None:
    """Remove the harness's other event files of a folder: of the same run in training, or of one with other settings.

    TensorBoard would join their curves.
    """
    for path in files.entries(folder, "events.out.tfevents.*"):
        if _OWN_FILE.fullmatch(path.name) and path not in kept:
            path.unlink(missing_ok=True)


def settings(run_id: str, science: Science) -> Any:
    """Return the summary of a run's settings as text."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    text = f"run {run_id}\n\n```json\n{json.dumps(science.to_json(), indent=2, sort_keys=True)}\n```\n"
    as_text = create_summary_metadata("settings", "")
    return Summary(value=[Summary.Value(tag="settings", tensor=make_tensor_proto([text.encode()]), metadata=as_text)])


def session_start(started: float, values: Iterable[tuple[str, Any]]) -> Any:
    """Return the summary of a run's start with its hyper-parameters."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=started)
    for name, value in values:
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
    return _of_plugin(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def session_end(ended: float, has_failed: bool) -> Any:
    """Return the summary of a run's end."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if has_failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(end_time_secs=ended, status=status)
    return _of_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _of_plugin(tag: str, **content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    plugin = {"plugin_name": metadata.PLUGIN_NAME, "content": data.SerializeToString(deterministic=True)}
    about = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def hyper_parameters(listed: Mapping[str, Any], science: Science) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each setting; ``listed``: those besides method and recipe, as a record names them."""
    yield from ((name, listed[name]) for name in _LISTED)
    method = science.method
    parts = {"params": method.params, "weights": method.weights, "recipe": recipe_json(science.recipe)}
    yield from ((f"{part}.{name}", value) for part, settings in parts.items() for name, value in settings.items())
