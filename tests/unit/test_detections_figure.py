"""The figure of detections: its images, its boxes, and where they are drawn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from harness.errors import UserError
from harness.planning.plan import Planned
from harness.reporting.figures import detections, style
from harness.reporting.figures.detections import Box, Grid
from harness.reporting.figures.style import COLOURS
from harness.spec.science import MethodSettings
from tests.support.cli import process, run_command
from tests.support.synthetic_coco import APS, BOXES, DETECTORS, PAIRS, both, compare, plan, prepare, record

pytestmark = pytest.mark.slow

TEACHER_NAME, STUDENT = PAIRS[0]
COLUMNS = [
    "ground truth",
    f"teacher {TEACHER_NAME}\nAP 41.0",
    *(f"{m}, seed 0\nAP {of[0]:.1f}" for m, of in APS.items()),
]
FOUND = [
    {"image_id": 100, "category_id": 3, "bbox": [1.5, 2.5, 30.25, 40.0], "score": 0.51},
    {"image_id": 100, "category_id": 1, "bbox": [10, 20, 5, 6], "score": 0.98765},
    {"image_id": 101, "category_id": 1, "bbox": [0, 0, 5, 6], "score": 0.49},
    {"image_id": 102, "category_id": 1, "bbox": [0, 0, 5, 6], "score": 0.9},  # has no object and is not drawn
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    coco_folder = tmp_path_factory.mktemp("coco")
    prepare(coco_folder)
    return coco_folder / "coco"


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep with records, in which every run has the same detections."""
    finished_folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished_folder)
        planned_sweep = plan(sweep(folder))
        record(planned_sweep)
        for run_id in planned_sweep.plan.runs:
            put(planned_sweep.store.predictions(run_id), FOUND)
    return finished_folder


@pytest.fixture
def planned(finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Enter a copy of the finished sweep's folder; return the sweep."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return plan(sweep(folder))


def sweep(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**DETECTORS, "dataset": {"name": "coco", "folder": str(folder)}, **changes}


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def grid(planned: Planned, folder: Path, count: int = 4) -> Grid:
    """Return the first pair's grid of images."""
    return detections.grids(compare(planned), planned.store, folder, count)[0]


def test_the_first_images_with_objects_and_all_that_is_known_of_them(planned: Planned, folder: Path) -> None:
    pictures = grid(planned, folder)
    assert list(pictures.images) == [100, 101, 103, 104], "102 shows nothing"
    assert list(pictures.columns) == COLUMNS
    assert pictures.columns["ground truth"] == {100 + i: [Box(*BOXES[i], 3, None)] for i in (0, 1, 3, 4)}
    for title in COLUMNS[1:]:
        low, high = pictures.columns[title][100]
        assert low == Box(1.5, 2.5, 30.25, 40.0, 3, 0.51) and high == Box(10, 20, 5, 6, 1, 0.98765), "the best last"
        assert 101 not in pictures.columns[title], "a score below one half"
    assert "score of at least 0.5" in pictures.note and "Not shown" not in pictures.note
    i = 3
    x, y, width, height = BOXES[i]
    inside = pictures.images[100 + i][y + 2 : y + height - 2, x + 2 : x + width - 2]
    assert inside.mean() > 240 and pictures.images[100 + i].mean() < 100, "the image is the stored one, and its own"


def test_matplotlib_is_handed_these_numbers(planned: Planned, folder: Path) -> None:
    figure = Figure()
    pictures = grid(planned, folder)
    detections.drawing(pictures).draw(figure)
    rows, columns = len(pictures.images), len(pictures.columns)
    assert len(figure.axes) == rows * columns
    for i, (image_id, image) in enumerate(pictures.images.items()):
        for j, boxes in enumerate(pictures.columns.values()):
            axes = figure.axes[i * columns + j]
            np.testing.assert_array_equal(axes.images[0].get_array(), image)
            left, right, bottom, top = axes.images[0].get_extent()
            assert (left, right, bottom, top) == (-0.5, 79.5, 59.5, -0.5), "a unit is a pixel, from the upper left"
            drawn = [p.get_bbox().bounds for p in axes.patches]  # type: ignore[attr-defined]
            assert drawn == [(b.x, b.y, b.width, b.height) for b in boxes.get(image_id, ())]
    assert [axes.get_title() for axes in figure.axes[:columns]] == COLUMNS
    of_teacher = figure.axes[1]
    assert [t.get_text() for t in of_teacher.texts] == ["cat 0.51", "dog 0.99"]
    assert [t.get_text() for t in figure.axes[0].texts] == ["cat"]
    cat, dog = (to_hex(p.get_edgecolor()).upper() for p in of_teacher.patches)
    assert cat != dog and {cat, dog} <= set(COLOURS)
    assert to_hex(figure.axes[0].patches[0].get_edgecolor()).upper() == cat, "a class has one colour in all columns"


def test_what_the_store_lacks_is_left_out_and_reported(planned: Planned, folder: Path) -> None:
    cells = {(c.student, c.method, c.seed): c for c in planned.plan.cells}
    kd = cells[STUDENT, "kd", 0]
    assert kd.teacher_run
    planned.store.predictions(kd.run_id).unlink()
    for seed in (0, 1):
        planned.store.predictions(cells[STUDENT, "fgfi", seed].run_id).unlink()
    planned.store.predictions(kd.teacher_run).unlink()
    pictures = grid(planned, folder)
    assert list(pictures.columns) == ["ground truth", "student, seed 0\nAP 31.0", "kd, seed 1\nAP 34.2"]
    assert pictures.note.endswith("Not shown, as the store does not have what they find: the teacher, fgfi.")
    figure = Figure()
    detections.drawing(pictures).draw(figure)
    assert "fgfi" in figure.get_supxlabel()


def test_a_given_teachers_predictions_are_those_of_its_evaluation(
    folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The predictions are stored once for all the teacher's runs, and not used for another evaluation."""
    monkeypatch.chdir(tmp_path)
    Path("given.safetensors").write_bytes(b"weights")
    pair = {"teacher": TEACHER_NAME, "student": STUDENT, "teacher_weights": {"file": "given.safetensors"}}
    planned = plan(sweep(folder, pairs=[pair]))
    record(planned)
    for cell in planned.plan.cells:
        put(planned.store.predictions(cell.run_id), FOUND)
    science = next(r.science for r in planned.plan.runs.values() if r.science.teacher)
    assert "the teacher" in grid(planned, folder).note
    put(planned.store.teacher_predictions(science.teacher_evaluation_id("validation")), FOUND)
    assert "the teacher" in grid(planned, folder).note
    put(planned.store.teacher_predictions(science.teacher_evaluation_id("test")), FOUND)
    assert list(grid(planned, folder).columns) == COLUMNS
    other = replace(science, recipe=science.recipe.model_copy(update={"eval_side": 320}))
    assert other.teacher_evaluation_id("test") != science.teacher_evaluation_id("test")
    method, recipe = MethodSettings("another", 1, {}, {}), science.recipe.model_copy(update={"lr": 1.0})
    other = replace(science, method=method, student="another", seed=7, recipe=recipe)
    assert other.teacher_evaluation_id("test") == science.teacher_evaluation_id("test")


@pytest.mark.parametrize(
    "damage",
    ["[", '{"a": 1}', '[{"image_id": 100}]', "[3]", "null",
     json.dumps([{**FOUND[0], "category_id": 2}]), json.dumps([{**FOUND[0], "bbox": [1, 2, 3]}]),
     json.dumps([{**FOUND[0], "bbox": [1, 2, 3, float("nan")]}]), json.dumps([{**FOUND[0], "score": "high"}]),
     json.dumps([{**FOUND[0], "image_id": []}])],
)  # fmt: skip
def test_damaged_predictions_are_one_message(planned: Planned, damage: str) -> None:
    run_id = next(c.run_id for c in planned.plan.cells)
    planned.store.predictions(run_id).write_text(damage)
    error = run_command("report", "detectors.yaml", "--images", "pictures").error
    assert error == f"{planned.store.predictions(run_id)}: damaged: not COCO's results for these images"
    assert not Path("pictures").exists()


def test_drawn_by_the_command(planned: Planned) -> None:
    """The command draws a picture per pair, with the same bytes each time and without torch."""
    drawn = run_command("report", "detectors.yaml", "--images", "results/images", "--image-count", "2")
    expected = [Path(f"results/images/detectors/objects_{teacher}_{student}.png") for teacher, student in PAIRS]
    assert [Path(line) for line in drawn.out.split()] == expected
    first = [path.read_bytes() for path in expected]
    assert all(content.startswith(b"\x89PNG") for content in first)
    program = (
        "import sys; from harness.console import app; sys.argv = ['harness', *sys.argv[1:]]\n"
        "try: app.main()\nfinally: print([m for m in ('torch', 'torchvision', 'ffcv') if m in sys.modules])"
    )
    args = ("report", "detectors.yaml", "--images", "results/images", "--image-count", "2")
    result = process("-c", program, *args, cwd=Path.cwd())
    assert result.out.splitlines()[-1] == "[]", result
    assert [path.read_bytes() for path in expected] == first


def test_names_of_classes_are_text(planned: Planned, folder: Path) -> None:
    pictures = grid(planned, folder)
    hostile = Grid(pictures.pair, pictures.images, pictures.columns, {1: "$x_{$ \n<b>", 3: "_hidden"}, "$x_{ " * 60)
    content = style.render(detections.drawing(hostile), "png")["png"]
    assert content.startswith(b"\x89PNG")


def test_what_cannot_be_drawn(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    detectors = plan(sweep(folder))
    assert "no run has a record" in run_command("report", "detectors.yaml", "--images", "pictures").error
    record(detectors)
    assert run_command("report", "detectors.yaml", "--out", "results/tables").code == 0
    assert "name its file" in run_command("report", "--images", "pictures").error
    other = tmp_path / "other"
    prepare(other)
    manifest = json.loads((folder / "manifest.json").read_text())
    (other / "coco/manifest.json").write_text(json.dumps({**manifest, "version": "0" * 16}))
    comparison = compare(detectors)
    with pytest.raises(UserError, match="another preparation"):
        detections.grids(comparison, detectors.store, other / "coco", 1)


def test_classifiers_have_no_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, classifiers = both()
    error = run_command("report", f"{classifiers.name}.yaml", "--images", "pictures").error
    assert "--images draws detections; this is a sweep of classification" in error
