"""Published numbers of detectors: a framework and a schedule for each, and no column of two frameworks."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.reporting.comparison import Comparison
from harness.reporting.paper.table import Paper, paper
from harness.reporting.published import numbers as published_numbers
from harness.reporting.published import table
from harness.reporting.published.table import ProtocolColumn, PublishedTable
from harness.reporting.tables import table_folder
from harness.spec import datasets
from harness.spec.science import DatasetChoice
from tests.support.published_numbers import built, committed, number
from tests.support.synthetic_coco import DETECTORS, compare, plan, prepare, record

R101, R50, R18 = (f"fasterrcnn_resnet{depth}_fpn" for depth in (101, 50, 18))
FGD = {
    "benchmark": "coco_frcnn_mmdet", "dataset": "MS-COCO 2017", "teacher": "FasterRCNN-R101-FPN",
    "student": "FasterRCNN-R50-FPN", "method": "FGD", "metric": "AP", "value": "40.4", "epochs": "24",
    "source": "FGD paper text (table 2)",
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("coco"))
        prepare(Path())
        planned = plan(DETECTORS)
        record(planned)
        yield compare(planned)


@pytest.fixture(scope="module")
def published(compared: Comparison) -> PublishedTable:
    published = table_folder.published_for(compared)
    assert published
    return published


@pytest.fixture(scope="module")
def paper_table(compared: Comparison, published: PublishedTable) -> Paper:
    return paper(compared, published, published_numbers.published_numbers("coco"))


def column(published: PublishedTable, protocol: str) -> ProtocolColumn:
    return next(c for c in published.columns if c.protocol.id == protocol)


def values(published: PublishedTable, protocol: str) -> dict[tuple[str, str], str]:
    """Return (student, method) -> number."""
    cells = column(published, protocol).cells
    return {(line.student, line.method): cell.numbers[0].value for line, cell in cells.items()}


def test_detectors_have_our_names_a_framework_and_a_schedule() -> None:
    names = {(r["printed_teacher"], r["printed_student"]): (r["teacher"], r["student"]) for r in committed("coco.csv")}
    assert names["FasterRCNN-R101-FPN", "FasterRCNN-R18-FPN"] == (R101, R18)
    assert names["FasterRCNN-R50-FPN", "FasterRCNN-MobileNetV2-FPN"] == (R50, "fasterrcnn_mobilenet_v2_fpn")
    assert names["RetinaNet-R101", "RetinaNet-R50"] == ("retinanet_resnet101_fpn", "retinanet_resnet50_fpn")
    assert names["GFL-R101", "GFL-R50"] == ("", "") and names["none", "FasterRCNN-R50-FPN"] == ("none", R50)
    protocols = {p["protocol"]: p for p in committed("protocols.csv") if p["dataset"] == "coco"}
    frameworks = {"coco_frcnn_fpn": "detectron2", "coco_frcnn_mmdet": "mmdetection", "coco_other": "mmdetection"}
    for r in committed("coco.csv"):
        assert protocols[r["protocol"]]["framework"] == frameworks[r["benchmark"]]
    assert protocols["detectron2_1x_90k"]["schedule"] == "1x (90k iterations of 16 images)"
    assert protocols["ea_kd_notes_180k_it_bs8"]["schedule"] == "1x (180k iterations of 8 images)"
    assert {p["schedule"] for p in protocols.values() if p["epochs"] in ("24", "2x")} == {"2x (24 epochs)"}
    assert not any(p["framework"] or p["schedule"] for p in committed("protocols.csv") if p["dataset"] != "coco")


def test_a_protocol_of_two_frameworks_is_refused() -> None:
    """Columns hold one protocol each, so none holds two frameworks."""
    rows = (number(**FGD), number(**{**FGD, "method": "FGD (inherit)"}))
    assert [r["protocol"] for r in built(*rows)["coco.csv"]] == ["fgd_24ep", "fgd_24ep"]
    with pytest.raises(UserError, match="protocol fgd_24ep: two rules or sources describe it differently"):
        built(rows[0], {**rows[1], "benchmark": "coco_frcnn_fpn"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "coco_frcnn_mdet"}, "did you mean 'coco_frcnn_mmdet'"),
        ({"epochs": "2x multi"}, "unknown epochs '2x multi'"),
    ],
)
def test_an_unknown_framework_or_schedule_is_reported(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as e:
        built(number(**{**FGD, **change}))
    assert message in str(e.value)


def test_no_column_has_numbers_of_two_frameworks(published: PublishedTable) -> None:
    frameworks = {p.id: p.framework for p in (c.protocol for c in published.columns)}
    assert set(frameworks.values()) == {"detectron2", "mmdetection"}, "both are there"
    for c in published.columns:
        numbers = [n for cell in c.cells.values() for n in cell.numbers]
        assert {frameworks[n.protocol] for n in numbers} == {c.protocol.framework}
        assert c.protocol.framework in c.remark and c.protocol.schedule in c.remark
        assert not any(cell.difference or cell.verdict for cell in c.cells.values()), "ours is of another framework"
        assert f"theirs by {c.protocol.framework}, {c.protocol.schedule}" in c.remark


def test_the_numbers_are_those_of_the_pairs(published: PublishedTable) -> None:
    assert values(published, "ea_kd_notes_180k_it_bs8") == {(R18, "kd"): "33.97"}
    assert values(published, "detectron2_1x_90k")[R50, "student"] == "37.9", "a source that distils none has no teacher"
    assert values(published, "fgd_baselines_24ep") == {(R50, "fgfi"): "39.3"}
    assert "a secondary source" in column(published, "ea_kd_notes_180k_it_bs8").remark.lower()
    assert "not stated" in column(published, "fgd_baselines_24ep").remark


def test_heads_say_framework_and_schedule(compared: Comparison) -> None:
    text = table_folder.table_text(compared, "table.md")
    assert "| FGD, baselines, mmdetection 2x, last or best? [" in text
    assert "EA-KD, paper notes, detectron2 1x, last or best? [" in text
    assert "Published numbers for these pairs, AP in %:" in text


def test_grey_numbers_of_a_pair_are_of_one_framework(paper_table: Paper, published: PublishedTable) -> None:
    """Grey numbers share a column; those of the other framework have their own, in the first table only."""
    of_pair: dict[tuple[str, str], set[str]] = {}
    for line in paper_table.lines:
        for c, entry in zip(paper_table.columns, line.entries, strict=True):
            if entry.published:
                source = paper_table.sources[entry.published.source - 1].protocol
                of_pair.setdefault(c.pair, set()).add(source.framework)
    assert of_pair.keys() == {(R101, R50), (R101, R18)} and all(len(frameworks) == 1 for frameworks in of_pair.values())
    everywhere = {
        column.protocol.framework for column in published.columns for line in column.cells if line.student == R50
    }
    assert everywhere == {"detectron2", "mmdetection"}, "else there was nothing to part"


@pytest.mark.parametrize(("evaluated_on", "size", "reason"), [
    ("test", 6, "ours evaluated on 6 images, theirs on the official 5,000"),
    ("train", 6, "ours evaluated on training images, not on a test set"),
    ("test", 5000, ""),
])  # fmt: skip
def test_other_images_than_theirs_are_stated(compared: Comparison, evaluated_on: str, size: int, reason: str) -> None:
    known = published_numbers.published_numbers("coco")
    assert known
    dataset = DatasetChoice.of_info(datasets.prepared_dataset("coco", "v", 80, 5, size, 0))
    protocol = known.protocols["fgd_24ep"]
    reasons = tuple(table.protocol_differences({"epochs": 9}, dataset, evaluated_on, protocol, {}))
    assert [r for r in reasons if r.startswith("ours evaluated")] == [reason] * bool(reason)
    assert reasons[-1] == "ours trained by this harness for 9 epochs, theirs by mmdetection, 2x (24 epochs)"


def test_numbers_as_data_have_the_framework(published: PublishedTable) -> None:
    kd = next(n for n in table.published_dicts(published) if n["student"] == R18)
    assert (kd["AP"], kd["framework"], kd["schedule"]) == (33.97, "detectron2", "1x (180k iterations of 8 images)")
    assert "top1" not in kd and "teacher_AP" in kd


def test_paper_prints_published_areas_next_to_ours(compared: Comparison) -> None:
    """FGD's table has AP of small, medium and large objects too."""
    rows = csv.DictReader(io.StringIO(table_folder.table_text(compared, "paper.csv")))
    fgfi = {r["metric"]: r["published"] for r in rows if (r["method"], r["student"]) == ("fgfi", R50)}
    assert fgfi == {"AP": "39.3", "AP50": "", "AP75": "", "APs": "22.5", "APm": "42.3", "APl": "52.2"}
