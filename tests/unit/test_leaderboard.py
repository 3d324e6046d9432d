"""The leaderboard's lines against a plain computation: ranks and differences of comparable runs."""

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import leaderboard
from harness.reporting.comparison import Contents
from harness.reporting.leaderboard import board as board_module
from harness.reporting.leaderboard import entries as board_lines
from harness.reporting.leaderboard import run_details
from harness.reporting.leaderboard.board import build_board
from harness.reporting.leaderboard.dataset_labels import dataset_labels
from harness.reporting.leaderboard.entries import LeaderboardEntry
from harness.reporting.leaderboard.pairs import pair_groups
from harness.reporting.protocol_guard import RecipeChange
from harness.spec import methods
from harness.spec.sweep_plan import Cell
from harness.store import compaction
from harness.store.schema import SCHEMA, YOUNGER_COLUMNS
from harness.store.store import Store
from tests.support.cli import process, run_command
from tests.support.leaderboard_records import put, put_compacted, record, science

DEFAULTS = {"version": 1, "params": {"temperature": methods.describe_method("kd").hyper["temperature"].default}}
KD = {**DEFAULTS, "use": "kd", "weights": methods.describe_method("kd").weights}
HOT_KD = {**KD, "params": {"temperature": 99.0}}
OTHER = {"use": "other", "version": 1, "params": {"p": 1}, "weights": {"ce": 1.0}}
ALONE = {"use": "student", "version": 1, "params": {}, "weights": {"ce": 1.0}}


def run(method: dict[str, Any], top1: float | None = 50.0, seed: int = 0, hours: float = 1.0, **more: Any) -> Any:
    known = {k: more.pop(k) for k in ("recipe", "teacher", "dataset", "student", "start") if k in more}
    if method is ALONE:
        known["teacher"] = None
    status = "done" if top1 is not None else "diverged"
    return record(science(method=method, seed=seed, **known), top1, status=status, cost_total_s=3600 * hours, **more)


def lines(rows: Sequence[Any]) -> list[LeaderboardEntry]:
    return board_lines.leaderboard_entries(table(rows), {})


def table(rows: Sequence[Any]) -> pa.Table:
    columns = pa.schema([SCHEMA.field(name) for name in board_lines.COLUMNS])
    return pa.Table.from_pylist(list(rows), schema=columns)


def only(entries: list[LeaderboardEntry], use: str) -> LeaderboardEntry:
    return next(line for line in entries if line.science.method.use == use)


RUNS = st.lists(
    st.tuples(
        st.sampled_from([KD, OTHER, ALONE]),
        st.integers(0, 3),
        st.sampled_from([0.1, 0.05]),
        st.sampled_from(["a", "b"]),
        st.none() | st.floats(0, 100),
    ),
    unique_by=lambda r: (r[0]["use"], *r[1:4]),
)


def test_a_run_shows_the_fidelity_and_the_retries_that_its_record_has() -> None:
    rows = [run(KD, seed=0, last_agreement=81.25, train_ece=2.5, retries=["one", "two"]), run(KD, seed=1)]
    (chunk,) = run_details.details([lines(rows)], pa.Table.from_pylist(rows, schema=SCHEMA))
    (line,) = chunk.values()
    shown = [{k: v for k, v in of_run.items() if k in YOUNGER_COLUMNS} for of_run in line["runs"]]
    assert shown == [{"last_agreement": 81.25, "train_ece": 2.5, "retries": "one; two"}, {}]


@given(RUNS)
def test_only_what_is_alike_is_compared(given: list[Any]) -> None:
    """Ranks and differences of a line are among runs of its own recipe and teacher, and paired by seed."""
    rows, plain = [], {}
    for method, seed, lr, sha, top1 in given:
        if method is not ALONE or sha == "a":
            teacher = {"model": "resnet56", "sha256": sha * 64}
            rows.append(run(method, top1, seed, recipe={"epochs": 9, "lr": lr}, teacher=teacher))
            key = (method["use"], lr, "" if method is ALONE else sha * 64)
            plain.setdefault(key, {})
            if top1 is not None:
                plain[key][seed] = top1
    entries = lines(rows)
    assert len(entries) == len(plain)
    for line in entries:
        lr = line.science.recipe.lr
        scores = plain[line.science.method.use, lr, line.teacher_key]
        assert line.by_seed == scores and (line.last.mean if line.last else None) == (
            statistics.fmean(scores.values()) if scores else None
        )
        rivals = [v for (use, r, sha), v in plain.items() if use != "student" and (r, sha) == (lr, line.teacher_key)]
        better = sum(statistics.fmean(v.values()) > line.last.mean for v in rivals if v) if line.last else None
        assert line.rank == (None if better is None or line.science.method.use == "student" else better + 1)
        for difference, other in (
            (line.to_baseline, ("student", lr, "")),
            (line.to_reference, ("kd", lr, line.teacher_key)),
        ):
            theirs = {} if other[0] == line.science.method.use else plain.get(other, {})
            paired = (
                [scores[s] - theirs[s] for s in scores if s in theirs] if line.science.method.use != "student" else []
            )
            assert (difference.mean if difference else None) == (statistics.fmean(paired) if paired else None)


def test_protocols_tell_recipe_dataset_and_evaluation_apart() -> None:
    rows = [
        run(KD),
        run(KD, recipe={"epochs": 240, "lr": 0.1}),
        run(KD, dataset={"name": "cifar100", "train_subset": None, "version": "w"}),
        run(KD, dataset={"name": "cifar100", "train_subset": None, "version": "v", "validation": 5000}),
        run(KD, student="resnet8"),
    ]
    entries = lines(rows)
    assert len({line.protocol.id for line in entries}) == 4
    assert all(line.rank == 1 for line in entries)


def test_fine_tuned_and_early_stopped_students_are_of_other_protocols() -> None:
    rows = [
        run(KD),
        run(KD, start={"sha256": "ab" * 32}),
        run(KD, start={"sha256": "ab" * 32, "prefix": "student."}),
        run(KD, recipe={"epochs": 240, "lr": 0.05, "stop_epoch": 60}),
    ]
    entries = lines(rows)
    labels = sorted(line.protocol.label for line in entries)
    assert len({line.protocol.id for line in entries}) == len(set(labels)) == 4, labels
    assert any(", 60 of 240 epochs, " in label for label in labels)


def test_settings_at_their_defaults_are_not_shown() -> None:
    entries = lines([run(KD), run(HOT_KD), run(OTHER)])
    settings = [dict(line.settings) for line in entries if line.science.method.use == "kd"]
    assert sorted(settings, key=len) == [{}, {"temperature": 99.0}]
    assert only(entries, "other").settings == {"ce": 1.0, "p": 1}, "of a method that is not ours, all"


def test_of_several_kds_the_one_with_default_settings_is_the_reference() -> None:
    entries = lines([run(KD, 50.0), run(HOT_KD, 60.0), run(OTHER, 57.0)])
    difference = only(entries, "other").to_reference
    assert difference and difference.mean == 7.0
    assert (
        only(lines([run(HOT_KD, 60.0), run({**HOT_KD, "version": 2}, 1.0), run(OTHER)]), "other").to_reference is None
    )


@pytest.mark.parametrize(
    "top1, kds, hours, hardware, expected",
    [
        (57.0, 1.0, 3.0, "NVIDIA H100", 3.5),
        (57.0, 1.0, 1.0, "NVIDIA H100", None),
        (57.0, 1.0, 0.5, "NVIDIA H100", None),
        (57.0, 1.0, 3.0, "NVIDIA A100", None),
        (43.0, 1.0, 3.0, "NVIDIA H100", None),  # no gain
        (57.0, 9.0, 9.5, "NVIDIA H100", None),  # within the noise of timing
        (57.0, 0.01, 0.03, "NVIDIA H100", None),  # a run of seconds
    ],
)
def test_gain_per_extra_hour(top1: float, kds: float, hours: float, hardware: str, expected: float | None) -> None:
    rows = [run(KD, 50.0, hours=kds, hardware="NVIDIA H100"), run(OTHER, top1, hours=hours, hardware=hardware)]
    assert only(lines(rows), "other").per_hour == expected


def test_means_above_equal_to_and_below_the_students_are_told_apart() -> None:
    scores = {0: (70.1, 70.2), 1: (70.3, 70.2)}  # of the student alone and KD: their means differ by rounding
    equal = [run(method, scores[seed][i], seed) for seed in scores for i, method in enumerate((ALONE, KD))]
    others = [run(OTHER, 70.5), run(HOT_KD, 70.0), run(HOT_KD, 60.0, student="resnet8")]
    assert {(e.science.student, e.rank, e.standing) for e in lines([*equal, *others]) if e.science.teacher} == {
        ("resnet20", 1, 1),
        ("resnet20", 2, 0),
        ("resnet20", 3, -1),
        ("resnet8", 1, None),
    }


def test_a_run_that_trained_a_teacher_is_no_students() -> None:
    """It heads its pairs. With another seed the same model is a student, and so is a teacher that a table lists."""
    teacher = run(ALONE, 70.0, student="resnet56")
    taught = {"teacher": {"model": "resnet56", "run": teacher["run_id"]}}
    rows = [teacher, run(ALONE, 71.0, 1, student="resnet56"), run(ALONE), run(KD, **taught), run(HOT_KD, **taught)]
    groups = pair_groups(lines(rows), set())
    assert [(g.teacher, g.student, g.teacher_runs, len(g.entries)) for g in groups] == [
        ("", "resnet56", (), 1),
        ("resnet56", "resnet20", (teacher["run_id"],), 3),
    ]
    assert groups[0].baseline and groups[0].baseline.by_seed == {1: 71.0}
    shown = {tuple(groups[1].settings[e.id].differing.items()) for e in groups[1].entries}
    assert shown == {(("temperature", "4"),), (("temperature", "99"),), ()}
    listed = board_lines.leaderboard_entries(table(rows), {teacher["run_id"]: ["sweep: student"]})
    assert {0: 70.0, 1: 71.0} in [e.by_seed for e in listed]
    untaught = pair_groups(board_lines.leaderboard_entries(table(rows[:1]), {}, frozenset([teacher["run_id"]])), set())
    assert [(g.student, g.baseline) for g in untaught] == [("resnet56", None)], "it has no pair yet"


def test_rows_of_one_group_never_look_alike() -> None:
    """They may differ only in what no setting of the method states."""
    rows = [run({**KD, "version": v}) for v in (1, 2)] + [run({**OTHER, "params": {"p": p}}) for p in (1.0, 1.0 + 1e-9)]
    (group,) = pair_groups(lines(rows), set())
    texts = [(e.science.method.use, *group.settings[e.id].differing.items()) for e in group.entries]
    assert len(set(texts)) == 4, texts


def test_a_failure_that_no_table_asks_for_is_superseded_by_a_later_result(tmp_path: Path) -> None:
    store, cells = Store(tmp_path), []
    for method in (KD, OTHER):
        failed = science(method={**method, "params": {"wrong": 1}})
        store.write_science(failed.run_id, failed)
        store.write_failure(failed.run_id, "code", "the cause", "", "")
        done = run(method, finished_at=datetime.now(UTC) + timedelta(days=1 if method is KD else -1))
        put(store, done)
        cells.append(Cell("resnet56", "resnet20", "a", 0, done["run_id"], None))
    asked = science(method={**KD, "params": {"wrong": 2}})
    store.write_science(asked.run_id, asked)
    store.write_failure(asked.run_id, "code", "the cause", "", "")
    cells.append(Cell("resnet56", "resnet20", "b", 0, asked.run_id, None))
    Contents("s", "", "cifar100", (240,), tuple(cells)).write(store.table_folder("s"))
    failures = build_board(store).overview["failures"]
    assert [(cause["superseded"], cause["count"]) for cause in failures] == [(False, 2), (True, 1)]


@pytest.mark.parametrize(
    "hardware, unit, hours",
    [
        ("NVIDIA H100 80GB HBM3", "GPU-h", 4.0),
        ("Tesla V100-SXM2-16GB", "GPU-h", 4.0),
        ("AMD Instinct MI250X", "GPU-h", 4.0),
        ("Intel(R) Xeon(R) Processor", "CPU-h", 12.0),
        ("AMD Ryzen 7 5800U with Radeon Graphics", "CPU-h", 12.0),
    ],
)
def test_cost_is_of_gpus_or_of_cores(hardware: str, unit: str, hours: float) -> None:
    """Two hours in two processes of three threads; a diverged run ended early and does not count."""
    settings = {"hardware": hardware, "processes": 2, "threads": 3}
    rows = [run(KD, hours=2.0, **settings), run(KD, None, seed=1, hours=0.1, **settings)]
    line = only(lines(rows), "kd")
    assert line.cost and (line.cost.unit, line.cost.hours) == (unit, hours)
    assert line.diverged == 1 and line.last and line.last.n == 1
    mixed = [*rows, run(KD, seed=2, hours=2.0, **{**settings, "hardware": "another"})]
    assert only(lines(mixed), "kd").cost is None, "hours on unlike hardware have no mean"


def test_no_figure_mixes_protocols(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = [run(KD), run(OTHER, recipe={"epochs": 9, "lr": 0.05})]
    put(store, *rows)
    cells = tuple(Cell("resnet56", "resnet20", m, 0, r["run_id"], None) for m, r in zip("ab", rows, strict=True))
    change = RecipeChange("resnet56", "resnet20", "b", "epochs 9", unlike=True)
    for name, changes in (("mixed", (change,)), ("alike", ())):
        Contents(name, "", "cifar100", (240,), cells, changes).write(store.table_folder(name))
    board = build_board(store)
    assert list(board.figures) == ["alike"]
    assert "mixed" in board.figures_note


def test_prepared_datasets_go_by_their_names() -> None:
    """One dataset may have two names, and two may have one."""
    counts = {"classes": 2, "train_size": 9, "test_size": 9, "train_per_class": 4}
    of = {v: {"name": "imagefolder", "version": v * 16, **counts} for v in "abcd"}
    rows = [run(KD, dataset=of[v], seed=seed) for v, seed in (("a", 0), ("a", 1), ("b", 0), ("c", 0), ("d", 0))]
    tables = [
        Contents("s", "", "imagefolder", (240,), (Cell("t", "s", "kd", 0, r["run_id"], None),), dataset_label=label)
        for r, label in zip(rows, ("x", "y", "leaves", "leaves", ""), strict=True)
    ]
    assert sorted(dataset_labels(lines(rows), tables).values()) == ["leaves (bbbbbb)", "leaves (cccccc)", "x or y"]


def test_tables_and_page_import_no_pandas(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = [run(ALONE), run(KD), run(KD, seed=1)]
    put_compacted(store, rows)
    names = ((r["method"], r["seed"], r["run_id"]) for r in rows)
    cells = tuple(Cell("resnet56", "resnet20", *name, None) for name in names)
    Contents("sweep", "", "cifar100", (240,), cells).write(store.table_folder("sweep"))
    code = """
import sys
from harness.console import app
for name in ("report", "leaderboard"):
    sys.argv = ["harness", name, "--results", sys.argv[-1]]
    try:
        app.main()
    except SystemExit as end:
        assert not end.code, name
    assert "pandas" not in sys.modules, name
print("both ended")
"""
    result = process("-c", code, tmp_path)
    assert result.code == 0 and result.out.endswith("both ended\n"), result


def test_of_a_large_store_the_page_has_the_runs_last_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has all rows, and the details that a store of only these runs would have."""
    whole, newest = 1000, 100  # of 5,000 runs and 500
    for module in (board_module, run_details):
        monkeypatch.setattr(module, "WHOLE", whole)
    monkeypatch.setattr(run_details, "NEWEST", newest)
    day = datetime(2026, 2, 1, tzinfo=UTC)
    new = [run(m, 60.0 + s, s, finished_at=day + timedelta(days=s)) for m in (KD, OTHER) for s in (0, 1)]
    old = [run(ALONE, 50.0, i, recipe={"epochs": 9, "lr": 1 / (1 + i // 2)}, curves=[]) for i in range(whole)]
    small, large = Store(tmp_path / "small"), Store(tmp_path / "large")
    put(small, *new)
    put_compacted(large, [*old, *new])
    alone, board = build_board(small), build_board(large)
    assert alone.overview["runs"] == alone.overview["held"] == 4
    assert (board.overview["runs"], board.overview["held"]) == (len(old) + 4, newest)
    held = {line["id"]: line["chunk"] for line in board.overview["lines"] if line["chunk"] is not None}
    assert len(board.overview["lines"]) == whole // 2 + 2 and len(held) == 2 + (newest - 4) // 2
    details = {k: v for chunk in board.chunks for k, v in chunk.items()}
    assert all(k in board.chunks[chunk] for k, chunk in held.items()) and details.keys() == held.keys()
    for line in alone.overview["lines"]:
        assert details[line["id"]] == alone.chunks[0][line["id"]]
        assert [r["curves"].keys() for r in details[line["id"]]["runs"]] == [{"train_ce", "test_top1"}] * 2
    assert board.figures_note == "None, as this store has more than 1,000 runs."


def test_a_hyper_parameter_named_as_the_seed_is_no_seed() -> None:
    """It is a setting, and each of its values has its own line."""
    rows = [run({**OTHER, "params": {"seed": a, "student": "x"}}, 50.0, s) for a in (0, 1) for s in (0, 1)]
    assert [line.by_seed for line in lines(rows)] == [{0: 50.0, 1: 50.0}] * 2


def test_a_page_is_written_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, written, slept = Store(tmp_path), list[int](), list[float]()
    happens = iter(
        [
            lambda: None,
            lambda: put(store, run(KD)),
            lambda: None,
            lambda: compaction.compact(store, 0),
            lambda: store.write_failure("f" * 16, "code", "the cause", "", ""),
            lambda: None,
        ]
    )

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if (happening := next(happens, None)) is None:
            raise KeyboardInterrupt
        happening()

    def write(store: Store, page: Path) -> float:
        written.append(len(slept))
        return 10.0

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(leaderboard, "_write", write)
    with suppress(KeyboardInterrupt):
        run_command("leaderboard", "--results", tmp_path, "--watch")
    assert written == [0, 2, 5]
    assert set(slept) == {leaderboard.REST * 10}, "most of the time it rests"
