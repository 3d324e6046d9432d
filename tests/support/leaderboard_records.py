"""Records of CIFAR-100 runs for the leaderboard."""

from typing import Any

import pyarrow as pa

from harness.spec.science import Science
from harness.store import generations, parts, records, schema
from harness.store.store import Store
from tests.support.comparisons import row


def science(**changes: Any) -> Science:
    default = {
        "dataset": {"name": "cifar100", "train_subset": None, "version": "v"},
        "method": {"use": "kd", "version": 1, "params": {}, "weights": {"ce": 1.0}},
        "protocol": 1,
        "recipe": {"epochs": 240, "lr": 0.05},
        "seed": 0,
        "student": "resnet20",
        "teacher": {"model": "resnet56", "sha256": "a" * 64},
    }
    return Science.from_json({**default, **changes})


def record(science: Science, top1: float | None, **more: Any) -> dict[str, Any]:
    """Return a record of a run with this science."""
    curves = [{"epoch": e, "name": n, "value": 1.0 / e} for n in ("train_ce", "test_top1") for e in range(1, 241)]
    columns = {
        "dataset": science.dataset.name,
        "student": science.student,
        "method": science.method.use,
        "seed": science.seed,
        "science": science.text,
        "versions": '{"python": "3.11"}',
        "hardware": "NVIDIA H100 80GB HBM3",
        "processes": 1,
        "curves": curves,
        "schema_version": schema.SCHEMA_VERSION,
    }
    return row(science.run_id, top1, top1, **{**columns, **more})


def put(store: Store, *rows: dict[str, Any]) -> None:
    for r in rows:
        records.write_record(store, {k: v for k, v in r.items() if k != "schema_version"})


def put_compacted(store: Store, rows: list[dict[str, Any]]) -> None:
    """Write rows of CIFAR-100 as compaction does."""
    part = parts.PartWriter(store.compact / "000001", "cifar100")
    for start in range(0, len(rows), 1000):
        part.add(pa.Table.from_pylist(rows[start : start + 1000], schema=schema.SCHEMA))
    generations.write_index(store.compact / "000001", schema.SCHEMA_VERSION, {part.name: part.close()})
