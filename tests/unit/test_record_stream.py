"""Records read a few at a time: the order of the rows, and the memory that outputs of a large sweep take."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.export import bundle
from harness.reporting.tables import table_folder
from harness.store import compaction, parts, record_stream, records
from harness.store.store import Store
from tests.support.comparisons import SWEEP, row
from tests.support.leaderboard_records import put

SEEDS, EPOCHS = 40, 4000


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """A finished sweep of 40 runs with long curves, most of them compacted; five rows are read at a time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record_stream, "ROWS", 5)
    monkeypatch.setattr(parts, "_GROUP_ROWS", 5)
    methods = {"methods": ["student"], "seeds": SEEDS, "pairs": SWEEP["pairs"][:1]}
    Path("small.yaml").write_text(yaml.safe_dump({**SWEEP, **methods}))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    curves = [{"epoch": e, "name": "test_top1", "value": e / 7} for e in range(1, EPOCHS + 1)]
    rows = [
        row(run.run_id, 60.0, 61.0, science=run.science.text, dataset="digits", host=f"node{i % 3}", curves=curves)
        for i, run in enumerate(planned.plan.runs.values())
    ]
    put(planned.store, *rows[:-7])
    compaction.compact(planned.store, 0)
    put(planned.store, *rows[-7:])
    return planned


def test_rows_come_in_the_order_asked_for(planned: Planned, tmp_path: Path) -> None:
    run_ids = [*planned.plan.runs][::-1]
    run_ids[10:10] = [run_ids[30], "0" * 16, run_ids[10]]  # twice; without a record; twice in one table
    tables = list(record_stream.stream_in_order(planned.store, run_ids, tmp_path))
    assert {len(table) for table in tables[:-1]} <= {4, 5}
    given = [run_id for run_id in run_ids if run_id != "0" * 16]
    assert pa.concat_tables(tables).column("run_id").to_pylist() == given
    whole = records.read_records(planned.store, run_ids)
    assert pa.concat_tables(tables).take(pa.array([given.index(k) for k in sorted(set(given))])) == whole


def _tables(planned: Planned, contents: Contents) -> None:
    table_folder.write_tables(contents, planned.store, Path("out"))
    file = pq.ParquetFile("out/records.parquet")
    assert file.metadata.num_rows == len(contents.cells) and file.metadata.row_group(0).num_rows == 5
    assert "retries" not in file.schema_arrow.names, "as no run was retried, the file is that of an earlier version"


def _bundle(planned: Planned, contents: Contents) -> None:
    bundle.write_bundle(Path("out.zip"), contents, planned.plan, planned.store, [], False)
    with zipfile.ZipFile("out.zip") as packed:
        names = packed.namelist()
        assert sum(name.startswith("records/") for name in names) == SEEDS
        packed.extractall("unpacked")
    unpacked = records.read_records(Store(Path("unpacked")), contents.run_ids(), ["run_id", "host"])
    assert set(unpacked.column("host").to_pylist()) == {"host1", "host2", "host3"}


@pytest.mark.parametrize("write", [_tables, _bundle])
def test_no_output_holds_all_curves(
    write: Callable[[Planned, Contents], None], planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.figures, "write_figures", lambda *_: None)  # slow, and no part of what is tested
    contents = Contents.of(planned.name, planned.plan)
    size = records.read_records(planned.store, contents.run_ids()).nbytes
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        write(planned, contents)
    finally:
        pa.set_memory_pool(before)
    assert 0 < pool.max_memory() < size, (pool.max_memory(), size)
