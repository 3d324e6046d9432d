"""Sweeps of one name in a store, which share a folder of tables: it is always one sweep's, whole."""

import errno
import fcntl
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Comparison, Contents
from harness.reporting.tables import table_folder
from harness.store import files, records
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, row

FOLDER = Path("results/tables/small")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sweep file and a store with all its records."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    planned = plan_sweep(folder / "small.yaml", folder / "results")
    for i, run in enumerate(planned.plan.runs.values()):
        records.write_record(planned.store, row(run.run_id, 60.0 + i, 61.0 + i, science=run.science.text))
    return folder


@pytest.fixture
def planned(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Enter a copy of that folder, and return the sweep in it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return plan_sweep(Path("small.yaml"), Path("results"))


def write(planned: Planned, note: str) -> Comparison:
    """Write the tables of the sweep, or with another note those of another sweep of its name."""
    contents = Contents.of(planned.name, planned.plan)
    return table_folder.write_tables(replace(contents, note=note), planned.store, FOLDER)


def after_the_first_table(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Call ``work`` when the next tables are written and the first of them is there."""
    real, called = files.replace_text, threading.Event()

    def replace_text(path: Path, text: str) -> None:
        real(path, text)
        if not called.is_set():
            called.set()
            work()

    monkeypatch.setattr(files, "replace_text", replace_text)


def test_two_that_write_at_once_leave_the_tables_of_one(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    second = threading.Thread(target=write, args=(planned, "second"))

    def begin_second() -> None:
        second.start()
        second.join(1.0)  # it waits for its turn

    after_the_first_table(monkeypatch, begin_second)
    write(planned, "first")
    second.join()
    assert {"Note: second" in (FOLDER / name).read_text() for name in ("table.md", "table.html")} == {True}
    assert (verified := run_command("verify")).code == 0, verified


def test_who_compares_tables_waits_until_they_are_written(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    write(planned, "first")
    begun, go_on = threading.Event(), threading.Event()
    after_the_first_table(monkeypatch, lambda: (begun.set(), go_on.wait()))
    second = threading.Thread(target=write, args=(planned, "second"))
    second.start()
    begun.wait()
    threading.Timer(0.5, go_on.set).start()
    verified = run_command("verify")
    second.join()
    assert verified.code == 0, verified


def test_who_compared_tables_while_they_were_written_does_it_again(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(planned, "first")
    after_the_first_table(monkeypatch, lambda: write(planned, "second"))  # the first table is that of verify itself
    verified = run_command("verify")
    assert verified.code == 0, verified


def test_a_sweep_prints_its_own_table(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    real = table_folder.write_tables

    def write_tables(*args: object) -> Comparison:
        monkeypatch.undo()
        monkeypatch.chdir(planned.store.root.parent)
        own = real(*args)  # type: ignore[arg-type]
        write(planned, "second")
        return own

    monkeypatch.setattr(table_folder, "write_tables", write_tables)
    done = run_command("sweep", "small.yaml")
    assert done.code == 0 and "a note with" in done.out and "Note: second" not in done.out, done
    assert "Note: second" in (FOLDER / "table.md").read_text()


def test_tables_are_written_without_locks_where_there_are_none(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    write(planned, "first")
    assert run_command("verify").code == 0
    assert run_command("report", "small.yaml", "--out", "elsewhere").code == 0
    assert [path.name for path in Path("elsewhere").iterdir()] == ["small"], "a folder elsewhere has no lock"
