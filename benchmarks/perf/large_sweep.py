"""A sweep of 10,000 runs, and a store in which all of them are done."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.planning.plan import Planned, plan_sweep
from harness.spec.science import Science, Trained
from harness.store import records
from harness.store.schema import SCHEMA, SCHEMA_VERSION
from harness.store.store import Store

STUDENTS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "wrn_16_1", "wrn_16_2", "wrn_40_1",
            "vgg8")  # fmt: skip
METHODS = ("student", "kd", "fitnets", "crd", "rekd")
SEEDS, EPOCHS = 200, 20


def write_sweep(folder: Path, epochs: int = EPOCHS, seeds: int = SEEDS) -> Path:
    """Write a sweep file of 10 pairs, 5 methods and these seeds, and the teacher's run."""
    pairs = "\n".join(f"  - {{teacher: resnet110, student: {s}}}" for s in STUDENTS)
    file = folder / "ten_thousand.yaml"
    file.write_text(
        f"dataset: cifar100\nrecipe: {{epochs: {epochs}, lr: 0.05}}\nmethods: [{', '.join(METHODS)}]\n"
        f"pairs:\n{pairs}\nseeds: {seeds}\n"
    )
    return file


def finish(file: Path, results: Path) -> Planned:
    """Write a record of invented numbers for each run of the sweep, as its job would."""
    planned = plan_sweep(file, results)
    planned.store.records.mkdir(parents=True)
    for i, run in enumerate(planned.plan.runs.values()):
        _write(planned.store, row(run.run_id, run.science, i, curves(run.science, i)))
    return planned


def _write(store: Store, row: dict[str, Any]) -> None:
    # records.write_record without its 10,000 fsyncs, which are not measured.
    store.record(row["run_id"]).write_bytes(records.file_content(pa.Table.from_pylist([row], schema=SCHEMA)))


def curves(science: Science, i: int) -> list[dict[str, Any]]:
    """Return a value per epoch and term, as in a record."""
    terms = ["train_ce", "train_total", "test_top1", "test_top5", "test_loss"]
    terms += [f"train_{t}" for t in science.method.weights if t != "ce"]
    epochs = range(1, science.recipe.epochs + 1)
    return [{"epoch": e, "name": t, "value": math.sin(i + e + k)} for e in epochs for k, t in enumerate(terms)]


def row(run_id: str, science: Science, i: int, curves: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record of invented numbers."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    known: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "done",
        "dataset": science.dataset.name,
        "dataset_version": science.dataset.version,
        "train_size": 50_000,
        "evaluated_on": "test",
        "evaluated_size": 10_000,
        "student": science.student,
        "teacher": science.teacher_model,
        "teacher_run": science.teacher.run if isinstance(science.teacher, Trained) else None,
        "method": science.method.use,
        "seed": science.seed,
        "epochs": science.recipe.epochs,
        "precision": "float32",
        "science": science.text,
        "weights_sha256": f"{i:064x}",
        "versions": '{"python": "3.11"}',
    }
    made_up: dict[Any, Any] = {
        pa.string(): "made up",
        pa.float64(): 50 + i % 1000 / 100,
        pa.int64(): i + 1,  # counts of threads and the like are at least 1
        pa.bool_(): False,
        pa.list_(pa.string()): [],
    }
    blank = {f.name: made_up.get(f.type, now) for f in SCHEMA}
    return {**blank, **known, "curves": curves}
