"""Stores merged into one, and several on one page: each run once, conflicts refused, sources never changed."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from safetensors.torch import save

from harness.reporting.comparison import Contents
from harness.reporting.leaderboard import board
from harness.spec.science import Science
from harness.spec.sweep_plan import Cell
from harness.store import checksums, compaction, files, json_files, records
from harness.store.locks import Lock
from harness.store.store import Store
from harness.store.tuning_log import Trial, TuningLog
from harness.store.verification import verify_records
from tests.support.cli import run_command
from tests.support.faults import faults
from tests.support.leaderboard_records import put, record, science

ALONE = {"use": "student", "version": 1, "params": {}, "weights": {"ce": 1.0}}
TEACHER = science(method=ALONE, teacher=None, student="resnet56")


def student(seed: int) -> Science:
    return science(seed=seed, teacher={"model": "resnet56", "run": TEACHER.run_id})


def train(store: Store, of: Science, top1: float, weights: bytes | None = b"weights", **more: Any) -> None:
    """Write what a finished run leaves; ``weights``: None where they were deleted since."""
    sha256 = hashlib.sha256(weights or b"weights").hexdigest()
    curves = [{"epoch": e, "name": "train_ce", "value": 1 / e if e < 3 else float("nan")} for e in (1, 2, 3)]
    more = {"teacher": of.teacher_model, "teacher_run": " + ".join(of.teacher_runs) or None, "curves": curves, **more}
    put(store, record(of, top1, weights_sha256=sha256, **more))
    store.write_science(of.run_id, of)
    store.write_progress(of.run_id, stage="main", epoch=240, epochs=240, fraction=1.0, top1=top1)
    if weights is not None:
        store.student_weights(of.run_id).write_bytes(weights)
        best = checksums.seal_bytes(save({}, {checksums.KEY: checksums.ZEROS}))
        store.best_weights(of.run_id).write_bytes(best)
        checksums.write_with_sum(store.predictions(of.run_id), b"[]")


def content(folder: Path) -> dict[str, Any]:
    """Return the files of a store but for locks and times."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    parsed = {p.relative_to(folder): files.read_json(p) if p.name == "progress.json" else p.read_bytes() for p in paths}
    return {str(k): (v["top1"] if k.name == "progress.json" else v) for k, v in parsed.items()}


def lasting(files_of_store: dict[str, Any]) -> dict[str, Any]:
    """Return the files without notes on progress, for which no run fails, and without what a later sweep removes."""
    return {name: value for name, value in files_of_store.items() if not name.endswith(("progress.json", ".tmp"))}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    json_files.print_note.cache_clear()
    yield


@pytest.fixture
def one() -> Store:
    """A store with a teacher and two students, one of them compacted."""
    store = Store.at(Path("a"))
    train(store, student(0), 60.0)
    compaction.compact(store, 0)
    train(store, TEACHER, 70.0)
    train(store, student(1), 61.0)
    return store


@pytest.fixture
def other() -> Store:
    """Another cluster's: a student that the first has too, and one of its own."""
    store = Store.at(Path("b"))
    train(store, student(1), 61.0, host="b1", cost_total_s=9.0, retries=["retried with 2 GB"])
    train(store, student(2), 62.0)
    return store


def rows(store: Store) -> list[dict[str, Any]]:
    return records.read_records(store, store.done_ids()).to_pylist()


@pytest.mark.usefixtures("one", "other")
def test_each_run_is_taken_once_with_what_a_finished_run_has() -> None:
    before = content(Path("a")), content(Path("b"))
    for path in (*Path("a").rglob("*"), *Path("b").rglob("*"), Path("a"), Path("b")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    planned = run_command("merge", "a", "b", "--into", "all", "--plan")
    assert planned.code == 0 and not Path("all").exists(), planned
    merged = run_command("merge", "a", "b", "--into", "all")
    assert merged.out == planned.out.replace("to take", "taken") and merged.code == 0, merged
    assert "a: 3 records taken, 0 already there\n" in merged.out
    assert "b: 1 record taken, 1 already there (1 with another host, time or commit" in merged.out
    assert "all: 4 records taken, 1 already there, 0 conflicts, weights of 0 teachers missing\n" in merged.out
    together, sources = Store.at(Path("all")), {**before[1], **before[0]}
    assert {row["run_id"]: row["last_top1"] for row in rows(together)} == {
        TEACHER.run_id: 70.0, student(0).run_id: 60.0, student(1).run_id: 61.0, student(2).run_id: 62.0,
    }  # fmt: skip
    (kept,) = records.read_records(together, [student(1).run_id]).to_pylist()
    assert kept["host"] == "x", "the first one stays"
    taken = content(together.root)
    of_runs = {name for name in sources if name.startswith("runs/")}
    assert len(of_runs) == 4 * 6 and {name: taken.get(name) for name in of_runs} == {k: sources[k] for k in of_runs}
    assert run_command("verify", "--results", "all").out.startswith(f"checked {together.root}: 4 records, weights of 4")
    again = run_command("merge", "b", "a", "--into", "all")
    assert "all: 0 records taken, 5 already there" in again.out and content(together.root) == taken
    assert (content(Path("a")), content(Path("b"))) == before


@pytest.mark.usefixtures("one")
def test_two_results_of_a_run_are_refused_with_both_sides(other: Store) -> None:
    train(other, student(0), 60.5, host="b2", git_commit="c" * 40)
    train(other, TEACHER, 70.0, b"other weights", status="done")
    for command in (("merge", "a", "b", "--into", "all"), ("leaderboard", "--results", "a", "--results", "b")):
        refused = run_command(*command)
        lines = sorted(refused.err.splitlines())
        assert refused.code == 2 and refused.out == "" and len(lines) == 2, refused
        (line,) = (line for line in lines if student(0).run_id in line)
        assert "resnet56 > resnet20 / kd / seed 0" in line and "top-1 60.0000 % (commit x, host x, 2026-01-02)" in line
        assert line.endswith(f"top-1 60.5000 % (commit {'c' * 12}, host b2, 2026-01-02) in {other.root}")
        assert any("resnet56 / student / seed 0" in line and "differ in weights_sha256:" in line for line in lines)
        assert not Path("all").exists() and not Path("a/leaderboard.html").exists()


@pytest.mark.usefixtures("one")
def test_what_is_damaged_or_leads_out_of_a_store_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")

    def record_cut(store: Store) -> None:
        path = store.record(student(1).run_id)
        path.write_bytes(path.read_bytes()[:-9])

    def link(*names: str) -> Any:
        def planted(store: Store) -> None:
            path = store.root.joinpath(*names)
            target = path.rename(tmp_path / "elsewhere") if path.is_dir() else secret
            path.unlink(missing_ok=True)
            path.symlink_to(target)

        return planted

    run = "runs", student(0).run_id
    planted = (
        (record_cut, "not a readable record"),
        (link("records", f"{student(1).run_id}.parquet"), "is a link; only files"),
        (link(*run, "student.safetensors"), "is a link; only files"),
        (link(*run, "predictions.json"), "is a link; only files"),
        (link(*run), "leads out of the store, to "),
        (link("compact", "000001"), "leads out of the store, to "),
    )
    for plant, message in planted:
        shutil.copytree("a", "copy", symlinks=True)
        plant(Store.at(Path("copy")))
        assert message in run_command("merge", "copy", "--into", "all").error
        assert not Path("all").exists()
        shutil.rmtree("copy")
        shutil.rmtree("elsewhere", ignore_errors=True)
    assert "is the store of --into" in run_command("merge", "a", "--into", "a").error
    Path("empty").mkdir()
    assert "no store: it has no folder records" in run_command("merge", "a", "empty", "--into", "all").error
    assert not Path("all").exists()


def test_weights_that_are_missing_or_damaged_are_said_and_taken_from_another_store(one: Store, other: Store) -> None:
    one.student_weights(TEACHER.run_id).unlink()
    one.student_weights(student(1).run_id).write_bytes(b"changed")
    result = run_command("merge", "a", "--into", "all")
    assert f"{one.root}: weights of 1 run are not there: {TEACHER.run_id}\n" in result.out
    assert f"teacher resnet56 (run {TEACHER.run_id}): weights not in {one.root}: its students" in result.out
    assert "weights of 1 teacher missing" in result.out
    assert f"{one.student_weights(student(1).run_id)}: damaged: " in result.err
    together = Store.at(Path("all"))
    assert len(rows(together)) == 3 and not together.student_weights(student(1).run_id).exists()
    train(other, TEACHER, 70.0)
    result = run_command("merge", "b", "--into", "all")
    assert f"{other.root}: weights of 2 runs taken whose record was there\n" in result.out
    assert together.student_weights(TEACHER.run_id).read_bytes() == b"weights"
    assert "weights of 0 teachers missing" in result.out and run_command("verify", "--results", "all").code == 0


def test_runs_in_training_are_left_alone(one: Store) -> None:
    """The runs of a source are counted. One of --into, where the source has its record, is left out and said."""
    together = Store.at(Path("all"))
    with Lock(one.run_lock(student(7).run_id)), Lock(together.run_lock(student(0).run_id)):
        result = run_command("merge", "a", "--into", "all")
        said = (
            f"1 run not taken, as another process trains or copies it: {student(0).run_id}; merge again when it is done"
        )
        assert result.code == 1 and said in result.err
        assert f"{one.root}: 1 run in training, whose records" in result.out
        assert not together.student_weights(student(0).run_id).exists() and len(rows(together)) == 2
    together.student_weights(student(0).run_id).write_bytes(b"of an attempt that was killed")
    assert run_command("merge", "a", "--into", "all").code == 0 and len(rows(together)) == 3
    assert run_command("verify", "--results", "all").code == 0


@pytest.mark.usefixtures("one")
def test_a_merge_that_fails_anywhere_goes_on_when_repeated(tmp_path: Path) -> None:
    shutil.rmtree(Path("a/compact"))
    with faults(tmp_path / "all") as counted:
        assert run_command("merge", "a", "--into", "all").code == 0
    whole = lasting(content(Path("all")))
    for at in range(0, len(counted.operations), 17):
        shutil.rmtree("all")
        with faults(tmp_path / "all", at, errno.ENOSPC):
            failed = run_command("merge", "a", "--into", "all")
        assert failed.code in (0, 2) and "Traceback" not in failed.err, failed
        assert not verify_records(Store.at(Path("all"))).damage
        assert run_command("merge", "a", "--into", "all").code == 0
        assert lasting(content(Path("all"))) == whole, counted.operations[at]


def test_a_result_that_is_written_meanwhile_is_compared(one: Store) -> None:
    """A job of --into may end during the merge, and so may a second merge."""
    together = Store.at(Path("all"))

    def write_first(top1: float, *_: object) -> bool:
        with mock.patch.object(records, "write_row", written):
            train(together, student(1), top1)
        return False

    written = records.write_row
    for top1, code in ((61.0, 0), (61.5, 2)):
        shutil.rmtree("all", ignore_errors=True)
        shutil.rmtree("a/compact", ignore_errors=True)
        one.record(TEACHER.run_id).unlink(missing_ok=True)
        with mock.patch.object(records, "write_row", partial(write_first, top1)):
            result = run_command("merge", "a", "--into", "all")
        assert result.code == code and ("has two results" in result.err) == bool(code), result


def test_tunings_are_taken_and_another_one_stays(one: Store, other: Store) -> None:
    def tune(store: Store, value: float, text: str) -> None:
        trial = Trial("kd", 0, 0, {}, (student(9).run_id,), 1, 10, value, "done")
        log = TuningLog("t", "top1", "tpe", (1000,), 10, (trial,), ())
        files.replace_json(store.tuning("t"), checksums.seal_value(asdict(log)))
        (store.tuned_sweep("t").parent / "recipes").mkdir(parents=True)
        store.tuned_sweep("t").write_text(text)
        (store.tuned_sweep("t").parent / "recipes" / "own.yaml").write_text(text)

    tune(one, 50.0, "a: 1")
    tune(other, 51.0, "b: 1")
    for _ in range(2):
        result = run_command("merge", "a", "b", "--into", "all")
        assert f"{other.root}: tuning of t not taken: --into has another one, which stays\n" in result.out
        of_tunings = {name: text for name, text in content(Path("all")).items() if name.startswith("tuning")}
        assert of_tunings == {name: text for name, text in content(Path("a")).items() if name.startswith("tuning")}
    other.tuned_sweep("t").unlink()
    other.tuned_sweep("t").symlink_to("/etc/hostname")
    assert "tuned.yaml: is a link" in run_command("merge", "b", "--into", "new").error


def test_the_page_of_two_stores_is_that_of_their_merge(
    one: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(store: Store, *seeds: int) -> Contents:
        cells = tuple(Cell("resnet56", "resnet20", "kd", i, student(i).run_id, TEACHER.run_id) for i in seeds)
        (contents := Contents("small", "", "cifar100", (240,), cells)).write(store.table_folder("small"))
        return contents

    monkeypatch.setattr(board, "find_spec", lambda name: None)  # figures would take seconds
    table(one, 0, 1)
    table(other, 1, 2)
    other.write_failure(student(3).run_id, "code", "a cause", "", "")
    page = run_command("leaderboard", "--results", "a", "--results", "b", "--results", "a")
    assert page.code == 0 and page.out == f"{one.leaderboard}\n", page
    assert run_command("merge", "a", "b", "--into", "all").code == 0
    together = Store.at(Path("all"))
    table(together, 0, 1, 2)
    shutil.copytree("b/failures", "all/failures")
    assert run_command("leaderboard", "--results", "all").code == 0
    assert one.leaderboard.read_bytes() == together.leaderboard.read_bytes()
