"""The project's published results: a store of records from which the tables follow."""

import shutil
from pathlib import Path

import pytest

from harness.planning.plan import plan_sweep
from harness.store import records
from harness.store.store import Store
from tests.support.cli import REPO, run_command

PUBLISHED = REPO / "results" / "published"
TABLES = sorted((PUBLISHED / "tables").iterdir())
SWEEPS = [path.name for path in TABLES if (path / "contents.json").exists()]  # others are tunings without final runs
OF_FIRST_REKD = {"cifar100_cpu", "rekd_ablation_cpu", "rekd_tuning"}  # whose runs of rekd are of its version 1
CLAIMS = list((PUBLISHED / "claims").iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a copy of the published store that tests may write to."""
    return Path(shutil.copytree(PUBLISHED, tmp_path / "published"))


def test_tables_and_claims_are_what_the_records_say(store: Path) -> None:
    result = run_command("verify", "--results", store)
    assert result.code == 0, result.out
    assert CLAIMS and result.out.count("checked") == 1 + len(TABLES) + len(CLAIMS), "records, tables, claims"


@pytest.mark.parametrize("name", SWEEPS)
def test_every_run_of_its_sweep_file_is_there(name: str, store: Path) -> None:
    tuned = store / "tuning" / name / "tuned.yaml"
    planned = plan_sweep(tuned if tuned.exists() else REPO / "benchmarks" / f"{name}.yaml", store)
    rows = records.read_records(Store(store), planned.plan.runs).to_pylist()
    expected = {
        run_id
        for run_id, run in planned.plan.runs.items()
        if name not in OF_FIRST_REKD or run.science.method.use != "rekd"
    }
    assert {row["run_id"] for row in rows} == expected
    assert not any(row["git_dirty"] for row in rows), "from code that can be found again"


def test_the_demo_has_the_settings_that_won() -> None:
    """The runs of ``digits_pairs`` are among those of the published tuning."""
    demo = plan_sweep(REPO / "benchmarks" / "digits_pairs.yaml", PUBLISHED)
    assert set(demo.states().values()) == {"done"}


def test_nothing_but_records_tables_tunings_and_claims_is_committed() -> None:
    names = {p.name for p in PUBLISHED.iterdir()}
    assert names == {"records", "runs.parquet", "compact", "tables", "tuning", "claims"}
    for path in PUBLISHED.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 1_000_000, path
