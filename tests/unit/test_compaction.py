"""Compaction: equal rows and tables before and after it, for the harness and for other readers of Parquet."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables import digests, table_folder
from harness.store import checksums, compaction, generations, records
from harness.store.generations import INDEX
from harness.store.locks import Lock
from harness.store.schema import SCHEMA, SCHEMA_VERSION, YOUNGER_COLUMNS
from harness.store.store import Store
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, invented_id, row

pytestmark = pytest.mark.slow


def ids(*numbers: int) -> list[str]:
    return [invented_id(i) for i in numbers]


def write(store: Store, *run_ids: str, **more: Any) -> None:
    for i, run_id in enumerate(run_ids):
        curves = [{"epoch": e, "name": "test_top1", "value": i + e / 10} for e in (1, 2)]
        record = row(run_id, 50.0 + i, 60.0 + i, dataset="digits" if i % 2 else "cifar100", warnings=["w"] * (i % 3))
        assert records.write_record(store, record | {"curves": curves} | more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a generation of six runs and five later records."""
    store = Store(tmp_path / "results")
    write(store, *ids(0, 1, 2, 3, 4, 5))
    assert compaction.compact(store, 0) == 6
    write(store, *ids(6, 7, 8, 9, 10))
    return store


def of_version(version: int, path: Path) -> pa.Table:
    """Return the rows of a file with another schema version."""
    table = pq.ParquetFile(path).read().replace_schema_metadata()
    at = SCHEMA.get_field_index("schema_version")
    return table.set_column(at, "schema_version", pa.array([version] * len(table), pa.int32()))


def parts(store: Store) -> list[Path]:
    return sorted(store.all_runs.glob("*/*.parquet"))


def test_rows_are_the_same_before_and_after(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, *ids(*range(9)))
    before = records.read_records(store, store.done_ids())
    some = records.read_records(store, ids(1, 5, 99), ["last_top1", "dataset"])
    assert compaction.compact(store, 0) == 9
    assert not list(store.records.iterdir())
    assert records.read_records(store, store.done_ids()).equals(before) and store.done_ids() == set(ids(*range(9)))
    assert records.read_records(store, ids(1, 5, 99), ["last_top1", "dataset"]).equals(some)
    assert compaction.compact(store, 0) == 0, "nothing new"


def test_rows_are_in_the_order_of_their_records_times(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written = ids(5, 3, 8, 1)
    for i, run_id in enumerate(written):
        write(store, run_id)
        os.utime(store.record(run_id), (i, i))
    compaction.compact(store, 0)
    generation = store.record_index().generation
    assert generation and list(generation.parts.values()) == [tuple(written)]


def test_replaced_files_stay_for_the_grace_period(store: Store) -> None:
    old = parts(store)[0].resolve()
    assert compaction.compact(store) == 5
    assert len(store.loose_ids()) == 5 and old.exists(), "a reader with an old index finds them"
    assert len(records.read_records(store, store.done_ids())) == 11, "and counts no row twice"
    compaction.remove_replaced(store, 0)
    assert not store.loose_ids() and not old.exists()
    assert len(records.read_records(store, store.done_ids())) == 11


def test_a_compacted_run_is_not_written_again(store: Store) -> None:
    assert not records.write_record(store, row(ids(0)[0], 1.0, 2.0))
    assert not records.write_record(store, row(ids(6)[0], 1.0, 2.0))
    assert records.write_record(store, row(ids(99)[0], 1.0, 2.0))


def test_a_reader_that_a_compaction_overtakes_misses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction starts and ends between a reader's two listings."""
    list_loose, read_newest = Store.loose_ids, generations.newest_generation
    overtaken = []

    def overtake() -> None:
        if not overtaken:
            overtaken.append(True)
            assert compaction.compact(Store(store.root), 0) == 5

    def loose_ids(self: Store) -> set[str]:
        run_ids = list_loose(self)
        overtake()
        return run_ids

    def newest(folder: Path) -> generations.Generation | None:
        generation = read_newest(folder)
        overtake()
        return generation

    monkeypatch.setattr(Store, "loose_ids", loose_ids)
    monkeypatch.setattr(generations, "newest_generation", newest)
    assert store.done_ids() == set(ids(*range(11))) and overtaken


def test_one_of_two_concurrent_compactions_comes_too_late(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system loses the lock, and another compaction commits just before the first one's rename."""
    rename, other_commits = os.rename, []

    def late(old: Path, new: Path) -> None:
        if new.name.isdecimal() and not other_commits:
            other_commits.append(new)
            write(store, *ids(20, 21))
            assert compaction._add_generation(Store(store.root)) == 7
            shutil.rmtree(store.records)  # its records are all in the new generation
        rename(old, new)

    monkeypatch.setattr(compaction.os, "rename", late)
    assert compaction.compact(store, 0) == 0
    monkeypatch.undo()
    assert store.done_ids() == set(ids(*range(11), 20, 21)) and len(records.read_records(store, store.done_ids())) == 13
    assert {path.name for path in store.compact.iterdir()} == {"000002", "lock"}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_parts_stay_few_and_each_compaction_writes_one(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    store, n = Store(tmp_path_factory.mktemp("parts")), 0
    for size in sizes:
        write(store, *ids(*range(n, n + size)), dataset="digits")
        n += size
        before = {path.name for path in parts(store)}
        compaction.compact(store, 0)
        rows = sorted((pq.ParquetFile(path).metadata.num_rows for path in parts(store)), reverse=True)
        assert sum(rows) == n and all(a > b for a, b in zip(rows, rows[1:], strict=False))
        assert len({path.name for path in parts(store)} - before) == 1
    assert store.done_ids() == set(ids(*range(n)))


def test_a_damaged_record_stays_where_it_is(store: Store) -> None:
    damaged = store.record(ids(8)[0])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert compaction.compact(store, 0) == 4
    assert store.loose_ids() == {damaged.stem}
    assert len(records.read_records(store, store.done_ids() - {damaged.stem})) == 10
    with pytest.raises(UserError, match=f"{damaged.stem}.parquet: not a readable record"):
        records.read_records(store, store.done_ids())


@pytest.mark.parametrize("column", ["run_id", "science", "last_top1", "curves.list.element.value", "finished_at"])
def test_a_damaged_part_is_named_and_its_runs_can_be_trained_again(store: Store, column: str) -> None:
    part = parts(store)[0].resolve()
    group = pq.ParquetFile(part).metadata.row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    content = bytearray(part.read_bytes())
    last = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1
    content[last] ^= 1
    part.write_bytes(content)
    with pytest.raises(UserError, match=rf"{part.name}: not readable .* train its 3 runs again"):
        records.read_records(store, store.done_ids())
    part.unlink()
    assert len(store.done_ids()) == 8 == len(records.read_records(store, ids(*range(20))))
    compaction.compact(store, 0)
    assert len(store.done_ids()) == 8 == len(records.read_records(store, ids(*range(20))))


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"parts": 5}', '{"parts": {"x": 5}}'])
def test_a_damaged_index_is_named(store: Store, content: str | None) -> None:
    index = store.all_runs.resolve() / INDEX
    index.unlink() if content is None else index.write_text(content)
    assert f"{index}: " in run_command("compact", "--results", store.root).error
    with pytest.raises(UserError, match=str(index)):
        store.done_ids()


def test_records_and_parts_of_an_older_version_are_upgraded(store: Store) -> None:
    before = records.read_records(store, store.done_ids()).to_pylist()
    folder = store.all_runs.resolve()
    index = json.loads((folder / INDEX).read_text())
    for path in (*(folder / name for name in index["parts"]), store.record(ids(6)[0])):
        pq.write_table(of_version(3, path).drop_columns(["warnings", "retries", "evaluated_parameters"]), path)
    (folder / INDEX).write_text(json.dumps({"parts": index["parts"], "schema_version": 3}))
    older = {"warnings": [], "schema_version": 3}
    expected = [r | (older if r["run_id"] in ids(*range(7)) else {}) for r in before]
    assert records.read_records(store, store.done_ids()).to_pylist() == expected
    compaction.compact(store, 0)
    assert records.read_records(store, store.done_ids()).to_pylist() == expected
    assert {pq.read_schema(path).equals(pq.read_schema(parts(store)[0])) for path in parts(store)} == {True}


def test_parts_from_before_the_last_columns_are_read(store: Store) -> None:
    """Only the columns that are asked for are read, and the younger ones are null, or an empty list."""
    index = store.all_runs.resolve() / INDEX
    listed = json.loads(index.read_text())
    for path in (store.all_runs.resolve() / name for name in listed["parts"]):
        pq.write_table(of_version(6, path).drop_columns(YOUNGER_COLUMNS), path)
    index.write_text(json.dumps({"parts": listed["parts"], "schema_version": 6}))
    columns = ["run_id", "last_top1", "train_ece", "retries", "dataset"]
    table = records.read_records(store, store.done_ids(), columns)
    assert table.schema.names == columns and table.column("train_ece").null_count == len(table)
    assert table.column("retries").to_pylist() == [[]] * len(table)
    assert records.read_records(store, store.done_ids()).schema.equals(SCHEMA)


def test_records_of_a_newer_version_are_not_compacted(store: Store) -> None:
    newer = store.record(ids(7)[0])
    more = pa.array([SCHEMA_VERSION + 1], pa.int32())
    newer.write_bytes(records.file_content(of_version(SCHEMA_VERSION + 1, newer).append_column("more", more)))
    assert compaction.compact(store, 0) == 4 and store.loose_ids() == {newer.stem}
    assert len(records.read_records(store, store.done_ids())) == 11
    index = store.all_runs.resolve() / INDEX
    listed = checksums.open_value(json.loads(index.read_text()))
    index.write_text(json.dumps(checksums.seal_value({**listed, "schema_version": SCHEMA_VERSION + 1})))
    with pytest.raises(UserError, match="newer than this harness"):
        compaction.compact(store, 0)


def test_a_copy_that_followed_links_can_be_compacted(store: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(store.root, tmp_path / "copy")))
    assert not copy.all_runs.is_symlink()
    assert compaction.compact(copy, 0) == 5
    assert copy.all_runs.is_symlink() and len(pq.read_table(copy.all_runs)) == 11


def test_parts_are_copied_where_they_cannot_be_linked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    write(store, *ids(11))  # fewer of cifar100 than in its part, so that the part is linked
    for run_id in ids(6, 8, 10):
        store.record(run_id).unlink()
    monkeypatch.setattr(compaction.os, "link", refuse)
    compaction.compact(store, 0)
    assert len(store.done_ids()) == 9 == len(records.read_records(store, store.done_ids()))


def test_other_readers_open_the_tables(store: Store) -> None:
    compaction.compact(store, 0)
    expected = sorted(
        records.read_records(store, store.done_ids(), ["run_id", "dataset", "last_top1"]).to_pylist(), key=str
    )
    columns = ["run_id", "dataset", "last_top1"]
    folder = str(store.all_runs)
    frame = pd.read_parquet(folder)
    assert set(frame.columns) == set(SCHEMA.names) and len(frame) == 11
    tables = {
        "pandas": pa.Table.from_pandas(frame[columns].astype({"dataset": str}), preserve_index=False),
        "pyarrow": pq.read_table(folder, columns=columns),
        "pyarrow.dataset": pyarrow.dataset.dataset(folder, partitioning="hive").to_table(columns=columns),
        "duckdb": duckdb.sql(f"SELECT run_id, dataset, last_top1 FROM '{folder}/**/*.parquet'").arrow(),
    }
    for name, result in tables.items():
        table = result.read_all() if hasattr(result, "read_all") else result
        assert sorted(table.select(columns).to_pylist(), key=str) == expected, name
    assert len(pd.read_parquet(folder, filters=[("dataset", "==", "digits")])) == 5


# tables --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a finished sweep whose tables were written from record files."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    for i, run in enumerate(planned.plan.runs.values()):
        record = row(run.run_id, 60.0 + i, 61.0 + i, science=run.science.text, dataset="digits")
        records.write_record(planned.store, record)
    table_folder.write_tables(
        Contents.of(planned.name, planned.plan), planned.store, planned.store.table_folder("small")
    )
    yield tmp_path


def test_tables_are_the_same_bytes_before_and_after(home: Path) -> None:
    folder = Path("results/tables/small")
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != digests.FILE}
    result = run_command("compact", "--grace", 0)
    assert result.code == 0 and result.out == f"{home}/results/runs.parquet\n", result
    assert "10 records compacted; 10 in 1 file\n" in result.err
    assert run_command("verify").code == 0
    assert run_command("report", "--out", "again").code == 0
    assert {name: Path("again/small", name).read_bytes() for name in first} == first
    assert run_command("sweep", "small.yaml", "--plan").out.startswith("small: 10 runs for 9 cells: 0 to do, 10 done")
    assert run_command("sweep", "small.yaml").out.startswith(first["table.md"].decode())


def test_tables_are_current_until_their_records_change(home: Path) -> None:
    planned = plan_sweep(Path("small.yaml"), Path("results"))
    store, contents, folder = planned.store, Contents.of(planned.name, planned.plan), Path("results/tables/small")
    compaction.compact(store, 0)
    table_folder.write_tables(contents, store, folder)
    assert table_folder.tables_are_current(contents, store, folder)
    os.utime(parts(store)[0])
    assert table_folder.tables_are_current(contents, store, folder)
    write(store, *ids(1), dataset="digits")
    compaction.compact(store, 0)
    assert table_folder.tables_are_current(contents, store, folder), "its part is linked"
    write(store, *ids(*range(2, 14)), dataset="digits")
    compaction.compact(store, 0)
    assert not table_folder.tables_are_current(contents, store, folder), "its rows are in another part"


def test_a_sweep_compacts_many_record_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(Path("results").resolve())
    assert run_command("sweep", "small.yaml").code == 0 and not store.compact.exists()
    monkeypatch.setattr(compaction, "MANY_FILES", 9)
    assert "python -m harness.compact" in run_command("report").err and not store.compact.exists()
    result = run_command("sweep", "small.yaml")
    assert (result.code, len(pq.read_table(store.all_runs))) == (0, 10)
    store.compact_lock.unlink()
    store.compact_lock.mkdir()
    assert run_command("sweep", "small.yaml") == result, "a sweep does not report that it could not compact"


def test_compact_refuses_a_missing_store_and_waits_for_nobody(home: Path) -> None:
    assert "nowhere: no such store" in run_command("compact", "--results", "nowhere").error
    store = Store(Path("results").resolve())
    with Lock(store.compact_lock) as acquired:
        assert acquired
        result = run_command("compact")
        assert result.code == 0 and "another process is compacting it" in result.err and store.loose_ids()


def test_open_store(home: Path) -> None:
    run_command("compact", "--grace", 0)
    results = harness.open_store("results")
    runs = results.runs()
    assert set(runs.column_names) == set(SCHEMA.names) - {"curves"} and len(runs) == 10
    assert results.to_pandas(["last_top1"])["last_top1"].sum() == sum(range(60, 70))
    assert results.sweeps() == ["small"]
    cells = results.cells("small")
    assert len(cells) == 9 and set(cells["entry"].to_pylist()) == set(SWEEP["methods"])
    assert results.curves().num_rows == 0
    for wrong, message in ((lambda: results.cells("smal"), "did you mean 'small'"),
                           (lambda: results.runs(["last_top"]), "did you mean 'last_top5'"),
                           (lambda: harness.open_store("nowhere"), "nowhere: no such store")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            wrong()


def test_curves_in_long_format(store: Store) -> None:
    points = harness.open_store(store.root).curves(ids(1, 7, 99)).to_pylist()
    rows = records.read_records(store, ids(1, 7)).to_pylist()
    assert points == [{"run_id": r["run_id"], **point} for r in rows for point in r["curves"]]
    assert len(harness.open_store(store.root).curves()) == 22
