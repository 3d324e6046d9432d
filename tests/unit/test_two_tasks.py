"""Detectors and classifiers in one store: no table, rank, figure or page mixes AP with top-1."""

import csv
import gzip
import io
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from harness.planning.plan import Planned
from harness.reporting import comparison, figures
from harness.reporting.comparison import Comparison, Contents
from harness.reporting.curves import Curve
from harness.reporting.figures.training import Panel
from harness.reporting.leaderboard import page
from harness.reporting.leaderboard.board import Board, build_board
from harness.reporting.tables import table_folder
from harness.spec.tasks.classification import TASK as CLASSIFICATION
from harness.spec.tasks.detection import TASK as DETECTION
from harness.store import records
from tests.support.cli import run_command
from tests.support.synthetic_coco import APS, OTHER, PAIRS, TEACHER, both, compare, metrics


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("both")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def planned(home: Path) -> tuple[Planned, Planned]:
    sweeps = both()
    for each in sweeps:
        contents = Contents.of(each.name, each.plan)
        table_folder.write_tables(contents, each.store, each.store.table_folder(each.name))
    return sweeps


@pytest.fixture(scope="module")
def compared(planned: tuple[Planned, Planned]) -> tuple[Comparison, Comparison]:
    detectors, classifiers = planned
    return compare(detectors), compare(classifiers)


@pytest.fixture(scope="module")
def board(planned: tuple[Planned, Planned]) -> Board:
    return build_board(planned[0].store)


def test_rows_are_of_their_tasks_score(compared: tuple[Comparison, Comparison]) -> None:
    detectors, classifiers = compared
    assert (detectors.contents.task, classifiers.contents.task) == (DETECTION, CLASSIFICATION)
    for row in detectors.rows:
        assert row.by_seed == dict(enumerate(APS[row.method]))
        mean = fmean(APS[row.method])
        assert row.best and row.best.mean == mean + 0.5 and row.teacher_score == TEACHER["AP"]
        assert row.student_score == fmean(APS["student"])
        expected = metrics("last", mean)
        for metric in DETECTION.printed:
            spread = row.last_metrics[metric]
            assert (
                spread and spread.mean == expected[f"last_{metric}"] and row.teacher_metrics[metric] == TEACHER[metric]
            )
    assert {m for row in classifiers.rows for m in row.last_metrics} == {"top1", "top5"}


@pytest.mark.parametrize("name", table_folder.TEXTS)
def test_no_table_has_the_other_tasks_numbers_or_names(compared: tuple[Comparison, Comparison], name: str) -> None:
    detectors, classifiers = (table_folder.table_text(comparison_of_task, name) for comparison_of_task in compared)
    for metric in ("top-1", "top1", "Top-1", "top-5", "top5", "accuracy"):
        assert metric not in detectors, name
    assert "AP" not in classifiers and f"{OTHER:.0f}" not in detectors + classifiers
    assert "31.5" in detectors, "the mean of the student's 31 and 32"


def test_columns_are_named_by_the_score(compared: tuple[Comparison, Comparison]) -> None:
    table, *_ = csv.reader(io.StringIO(table_folder.table_text(compared[0], "table.csv")))
    assert [name for name in table if "AP" in name] == [
        *(f"{what}_AP_{part}" for what in ("last", "best", "to_baseline", "to_reference")
          for part in ("mean", "std", "n")),
        "teacher_AP", "student_AP", "last_AP_ci_low", "last_AP_ci_high",
    ]  # fmt: skip
    cells = list(csv.DictReader(io.StringIO(table_folder.table_text(compared[0], "paper.csv"))))
    kd = {c["metric"]: float(c["mean"]) for c in cells if c["method"] == "kd" and c["student"] == PAIRS[1][1]}
    assert kd == {m: v for m, v in zip(DETECTION.printed, metrics("last", fmean(APS["kd"])).values(), strict=True)}
    tested = {c["metric"] for c in cells if c["p_holm"]}
    assert tested == {"AP"}, "the test is of the score alone"


def test_a_pair_that_is_too_wide_for_a_page_is_parted_in_latex(compared: tuple[Comparison, Comparison]) -> None:
    tex = table_folder.table_text(compared[0], "paper.tex")
    blocks = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", tex, re.DOTALL)
    assert [re.findall(r"\{c\}\{(AP\w*)\}", block) for block in blocks] == [
        ["AP", "AP50", "AP75"],
        ["APs", "APm", "APl"],
    ] * 2
    assert all(block.count("fasterrcnn") == 2 for block in blocks), "teacher and student are named once over them"


def test_a_paper_table_of_detectors_is_one_pair(compared: tuple[Comparison, Comparison]) -> None:
    """The table's head lists the metrics, with the pair once above them."""
    text, html = (table_folder.table_text(compared[0], f"paper.{form}") for form in ("md", "html"))
    heads = [line.strip("| ").replace(" ", "").split("|") for line in text.splitlines() if line.startswith("| method")]
    assert heads == [["method", *DETECTION.printed]] * len(PAIRS)
    above = [line.replace("\\", "") for line in text.splitlines() if line.endswith(":") and " > " in line]
    assert above == [f"{teacher} > {student}:" for teacher, student in PAIRS]
    assert html.count('<th scope="colgroup" colspan="6">fasterrcnn_resnet18_fpn</th>') == 1


def test_ranks_are_by_AP_and_over_only_the_detectors_pairs(compared: tuple[Comparison, Comparison]) -> None:
    ranking = compared[0].ranking
    assert ranking and ranking.pairs == len(PAIRS)
    assert [(r.method, r.rank) for r in ranking.ranks] == [("fgfi", 1), ("kd", 2), ("student", 3)]
    assert "Average rank of the mean last-epoch AP" in table_folder.table_text(compared[0], "table.md")


def test_plain_data_has_the_metrics_names(compared: tuple[Comparison, Comparison]) -> None:
    detectors, classifiers = (
        comparison.comparison_dict(comparison_of_task)["rows"][0] for comparison_of_task in compared
    )
    assert {"teacher_AP", "student_AP", "last_AP50", "teacher_APl"} <= detectors.keys()
    assert {"teacher_top1", "student_top1", "last_top5", "teacher_top5"} <= classifiers.keys()
    assert not any("score" in key or "others" in key for key in (*detectors, *classifiers))


@pytest.mark.parametrize(
    ("evaluated_on", "sentence"),
    [
        ("test", "6 test images"),
        ("validation", "held-out training images for validation, NOT the test set"),
        ("train", "6 training images that are evaluated on, NOT a test set"),
    ],
)
def test_the_evaluation_set_is_stated(
    home: Path, planned: tuple[Planned, Planned], evaluated_on: str, sentence: str
) -> None:
    detectors = planned[0]
    contents = Contents.of(detectors.name, detectors.plan)
    table = records.read_records(detectors.store, contents.run_ids())
    at = table.schema.get_field_index("evaluated_on")
    compared = comparison.compare(contents, table.set_column(at, "evaluated_on", [[evaluated_on] * len(table)]))
    for name in ("table.md", "paper.md"):
        assert sentence in table_folder.table_text(compared, name)


def test_curves_are_of_the_score_and_metrics_are_no_diagnostics(compared: tuple[Comparison, Comparison]) -> None:
    detectors = compared[0]
    names = ["train_ce", "train_total", "train_rpn_box", *metrics("train", 1.0), *metrics("test", 1.0)]
    run = {name: Curve(np.array([1, 2]), np.array([10.0, 20.0])) for name in names}
    of_runs = {run_id: run for row in detectors.rows for run_id in row.run_ids}
    drawn = {d.name: d for d in figures.drawings(detectors, of_runs)}
    pair = "_".join(PAIRS[0])
    assert f"curves_{pair}" in drawn and "top-1" not in "".join(d.caption for d in drawn.values())

    def titles(name: str) -> list[str]:
        panels: list[Panel] = drawn[name].draw.args[0]  # type: ignore[attr-defined]
        return [panel.title for panel in panels]

    assert titles(f"curves_{pair}") == [
        "AP on the training images (%)", "test AP (%)", "detector's own loss in training",
    ]  # fmt: skip
    assert titles(f"diagnostics_kd_{pair}") == ["rpn_box"]
    assert "last-epoch AP against the time" in drawn[f"pareto_{pair}"].caption


# the page ------------------------------------------------------------------------------------------------------------


def test_a_page_of_both_tasks_keeps_them_apart(board: Board) -> None:
    protocols = board.overview["protocols"]
    shown = {p["dataset"]: (p["score"], p["shown"]) for p in protocols.values()}
    assert shown == {"coco": ("AP", "AP"), "digits": ("top1", "top-1")}
    for line in board.overview["lines"]:
        score = protocols[line["protocol"]]["score"]
        assert (30 < line["last"][0] < 45) if score == "AP" else (60 <= line["last"][0] < 63)
    for group in board.overview["groups"]:
        is_detection = protocols[group["protocol"]]["score"] == "AP"
        assert group["teacher_score"] == (TEACHER["AP"] if is_detection else 90.0)
        ranks = {board.overview["lines"][i]["method"]: board.overview["lines"][i]["rank"] for i in group["lines"]}
        if is_detection:
            assert ranks == {"fgfi": 1, "kd": 2, "student": None}


def test_runs_on_the_page_have_only_their_own_metrics(board: Board) -> None:
    scores = {line["id"]: board.overview["protocols"][line["protocol"]]["score"] for line in board.overview["lines"]}
    runs = [(line_id, run) for chunk in board.chunks for line_id, line in chunk.items() for run in line["runs"]]
    assert {scores[line_id] for line_id, _ in runs} == {"AP", "top1"}
    for line_id, run in runs:
        measured = {key.partition("_")[2] for key in run if key.startswith(("last_", "best_", "teacher_"))}
        measured -= {"epoch", "run", "sha256"}
        task = DETECTION if scores[line_id] == "AP" else CLASSIFICATION
        assert measured == set(task.metrics) and OTHER not in _numbers(run)


def _numbers(run: dict[str, Any]) -> list[Any]:
    return [run[key] for key in run if key.startswith(("last_AP", "best_AP", "last_top1", "best_top1", "teacher_AP"))]


def test_pictures_are_shown_with_the_lines_of_their_pair(planned: tuple[Planned, Planned]) -> None:
    """They are embedded in the page, which needs no other file. A figure that is too large is left out."""
    store = planned[0].store
    before = build_board(store)
    assert before.images == () and not any(line["images"] for line in before.overview["lines"])
    folder = store.images("detectors")
    folder.mkdir(parents=True)
    pictures = [folder / f"objects_{'_'.join(pair)}.png" for pair in PAIRS]
    pictures[0].write_bytes(b"\x89PNG one")
    with pictures[1].open("wb") as file:
        file.truncate(10_000_000)
    (folder / "objects_of_no_pair.png").write_bytes(b"another")
    board = build_board(store)
    (image,) = board.images
    assert image.png == b"\x89PNG one" and PAIRS[0][1] in image.caption and image.sweep == "detectors"
    for group in board.overview["groups"]:
        for line in (board.overview["lines"][i] for i in group["lines"]):
            belongs = (group["teacher"], group["student"]) == PAIRS[0]
            assert line["images"] == ([0] if belongs else []), group
    html = page.html(board)
    embedded = html.partition('id="objects0"><img src="data:image/png;base64,')[2].partition('"')[0]
    assert b64decode(embedded) == image.png
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_the_page_is_written_by_the_command(planned: tuple[Planned, Planned]) -> None:
    assert run_command("leaderboard").code == 0
    text = Path("results/leaderboard.html").read_text()
    packed = text.partition('id="chunk0">')[2].partition("<")[0]
    assert json.loads(gzip.decompress(b64decode(packed)))


def test_verify_rebuilds_both(planned: tuple[Planned, Planned]) -> None:
    assert run_command("verify").code == 0
