"""Runs as event files for TensorBoard, from their records: the same record gives the same bytes. Imports no torch."""

import json
from collections.abc import Iterator, Mapping
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


def _write(row: dict[str, Any], folder: Path) -> Path:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboard: pip install 'kd-harness[tensorboard]'") from None
    started, ended = (row[name].timestamp() for name in ("started_at", "finished_at"))
    events = [Event(wall_time=started, file_version="brain.Event:2")]
    events += [Event(wall_time=started, summary=summary) for summary in _settings(row)]
    for epoch, tag, value in scalars(row):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        events.append(Event(wall_time=ended, step=epoch, summary=summary))  # a record does not say when an epoch ended
    path = folder / f"events.out.tfevents.{int(ended)}.{file_name(row['run_id'])}"

    def write_events(temporary: Path) -> None:
        with temporary.open("wb") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString(deterministic=True))

    files.replace(path, write_events, durable=False)
    return path


def _settings(row: dict[str, Any]) -> Iterator[Any]:
    """Yield summaries of a run's settings, as text and as hyper-parameters."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    science = Science.from_text(row["science"])
    text = f"run {row['run_id']}\n\n```json\n{json.dumps(science.to_json(), indent=2, sort_keys=True)}\n```\n"
    as_text = create_summary_metadata("settings", "")
    yield Summary(value=[Summary.Value(tag="settings", tensor=make_tensor_proto([text.encode()]), metadata=as_text)])
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=row["started_at"].timestamp())
    for name, value in _hyper_parameters(row, science):
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
    end = plugin_data_pb2.SessionEndInfo(end_time_secs=row["finished_at"].timestamp(), status=api_pb2.STATUS_SUCCESS)
    data = plugin_data_pb2.HParamsPluginData
    for tag, content in (
        (metadata.SESSION_START_INFO_TAG, data(version=metadata.PLUGIN_DATA_VERSION, session_start_info=start)),
        (metadata.SESSION_END_INFO_TAG, data(version=metadata.PLUGIN_DATA_VERSION, session_end_info=end)),
    ):
        plugin = {"plugin_name": metadata.PLUGIN_NAME, "content": content.SerializeToString(deterministic=True)}
        about = SummaryMetadata(plugin_data=plugin)
        yield Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _hyper_parameters(row: Mapping[str, Any], science: Science) -> Iterator[tuple[str, Any]]:
    yield from ((name, row[name]) for name in _LISTED)
    method = science.method
    parts = {"params": method.params, "weights": method.weights, "recipe": recipe_json(science.recipe)}
    yield from ((f"{part}.{name}", value) for part, settings in parts.items() for name, value in settings.items())
