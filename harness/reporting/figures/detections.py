"""A grid of evaluation images: their objects, and the boxes that teacher and students detect."""

import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data import beton
from harness.data.coco_parts import Parts
from harness.data.load.arrays import WrongData
from harness.errors import UserError
from harness.phrases import file_name
from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.style import COLOURS, Drawing, Figure, text, write_drawing
from harness.spec.lines import PairNames
from harness.spec.science import Science
from harness.spec.sweep_plan import Cell
from harness.store import checksums
from harness.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SCORE = 0.5  # of the boxes that are drawn: a detector proposes many more
_CELL = 1.6  # inches, an image's width; three quarters of it are its height
_LETTERS = 20  # of the note, per inch


@dataclass(frozen=True)
class Box:
    """A box in pixels of the image, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    category: int  # COCO's id
    score: float | None  # None: the truth


Boxes = Mapping[int, Sequence[Box]]  # COCO's id of the image -> its boxes


@dataclass(frozen=True)
class Grid:
    """The content of a picture. ``columns``: title -> boxes."""

    pair: PairNames
    images: Mapping[int, np.ndarray]  # COCO's id -> (H, W, 3) uint8, in the order of the rows
    columns: Mapping[str, Boxes]
    categories: Mapping[int, str]
    note: str


def write_pictures(comparison: Comparison, store: Store, data: Path, count: int, folder: Path) -> list[Path]:
    """Write a picture for each pair. ``data``: the prepared folder; ``count``: the number of images.

    Raises:
        UserError: the sweep has no record yet; the data are another dataset's; predictions are damaged; or matplotlib
            or Pillow is missing.
    """
    drawings = map(drawing, grids(comparison, store, data, count))
    return [path for one in drawings for path in write_drawing(one, folder, "png")]


def name(teacher: str, student: str) -> str:
    """Return the name of a pair's picture file, without its suffix."""
    return file_name("objects", teacher, student)


def caption(teacher: str, student: str) -> str:
    return (
        f"{teacher} > {student}: images that are evaluated on, the first with objects. Their objects, and what the "
        f"detectors find with a score of at least {LEAST_SCORE}."
    )


def grids(comparison: Comparison, store: Store, data: Path, count: int) -> list[Grid]:
    """Return the grid of each pair."""
    if not comparison.sciences:
        raise UserError(f"{comparison.contents.name}: nothing to draw yet: no run has a record")
    dataset = Science.from_text(next(iter(comparison.sciences.values()))).dataset
    try:
        parts = Parts(dataset, data)
        images, truth = scenes(parts, count)
    except WrongData as e:
        raise UserError(str(e)) from None
    categories = {category.id: category.name for category in parts.manifest.categories}
    return [_grid(pair, comparison, store, images, truth, categories) for pair in comparison.pairs()]


def scenes(parts: Parts, count: int) -> tuple[dict[int, np.ndarray], dict[int, list[Box]]]:
    """Return the first evaluation images that have objects, and their objects except crowds.

    Raises:
        WrongData: an image cannot be decoded, or its objects are damaged.
    """
    part, positions, _ = parts.evaluated()
    file, annotations = beton.read_beton(parts.file(part)), parts.annotations(part)
    objects = annotations.training_objects(file.heights, file.widths)
    chosen = [int(i) for i in positions if objects.counts[i]][:count]
    ids = [category.id for category in parts.manifest.categories]
    images, truth = {}, {}
    for i in chosen:
        image_id, mine = int(annotations.image_ids[i]), objects.of(i)
        where = f"{parts.file(part)}: image {i}"
        images[image_id] = file.pixels(i) if file.are_pixels[i] else _pixels(file.jpeg(i).tobytes(), where)
        corners = zip(objects.boxes[mine].tolist(), objects.labels[mine].tolist(), strict=True)
        truth[image_id] = [Box(x, y, x2 - x, y2 - y, ids[label - 1], None) for (x, y, x2, y2), label in corners]
    return images, truth


def detected_boxes(
    path: Path, shown: Mapping[int, object], categories: Mapping[int, str]
) -> dict[int, list[Box]] | None:
    """Return the boxes of a COCO results file for the shown images, best last, to be drawn over the rest.

    None: there is no such file.

    Raises:
        UserError: it is damaged, or has a category that the data do not have.
    """
    try:
        results = json.loads(checksums.read_with_sum(path))
        boxes: dict[int, list[Box]] = {}
        for result in results:
            if result["image_id"] in shown and result["score"] >= LEAST_SCORE:
                x, y, width, height = (float(side) for side in result["bbox"])
                box = Box(x, y, width, height, result["category_id"], float(result["score"]))
                if box.category not in categories or not all(map(math.isfinite, (x, y, width, height))):
                    raise ValueError
                boxes.setdefault(result["image_id"], []).append(box)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{path}: damaged: not COCO's results for these images") from None
    return {image_id: sorted(mine, key=lambda box: box.score or 0.0) for image_id, mine in boxes.items()}


def _grid(
    pair: PairNames, comparison: Comparison, store: Store, images: Mapping[int, np.ndarray], truth: Boxes,
    categories: Mapping[int, str],
) -> Grid:  # fmt: skip
    rows = comparison.pairs()[pair]
    cells = {line.method: cells for line, cells in comparison.contents.lines().items() if line.pair == pair}
    columns: dict[str, Boxes] = {"ground truth": truth}
    shown = comparison.contents.task.shown
    missing = []
    teacher_file = _teacher_file(store, comparison, rows, next(iter(cells.values()))[0])
    boxes = None if teacher_file is None else detected_boxes(teacher_file, images, categories)
    if boxes is None:
        missing.append("the teacher")
    else:
        columns[_title(f"teacher {pair.teacher}", shown, rows[0].teacher_score)] = boxes
    for row in rows:
        for cell in cells[row.method]:
            if (boxes := detected_boxes(store.predictions(cell.run_id), images, categories)) is not None:
                columns[_title(f"{row.method}, seed {cell.seed}", shown, row.by_seed.get(cell.seed))] = boxes
                break
        else:
            missing.append(row.method)
    left_out = f" Not shown, as the store does not have what they find: {', '.join(missing)}." if missing else ""
    return Grid(pair, images, columns, categories, caption(*pair) + left_out)


def _teacher_file(store: Store, comparison: Comparison, rows: Sequence[Row], cell: Cell) -> Path | None:
    """Return the file of a teacher's detections; None when no run has learnt from the teacher yet."""
    if cell.teacher_run is not None:
        return store.predictions(cell.teacher_run)
    for science in map(comparison.science, rows):
        if science is not None and science.teacher:
            return store.teacher_predictions(science.teacher_evaluation_id(comparison.evaluated_on or "test"))
    return None


def _title(column: str, shown: str, score: float | None) -> str:
    return column if score is None else f"{column}\n{shown} {score:.1f}"


def _pixels(jpeg: bytes, where: str) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("--images needs Pillow: pip install 'kd-harness[figures]'") from None
    try:
        return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    except Exception as error:  # PIL raises many kinds
        raise WrongData(f"{where} cannot be decoded: {error}") from error


# drawing -------------------------------------------------------------------------------------------------------------


def drawing(grid: Grid) -> Drawing:
    """Return the drawing: a row per image, a column for the ground truth and for each detector."""
    size = (_CELL * len(grid.columns), 0.75 * _CELL * len(grid.images) + 0.7)
    return Drawing(name(*grid.pair), grid.note, size, partial(_draw, grid), dpi=150)


def _draw(grid: Grid, figure: Figure) -> None:
    panels = figure.subplots(len(grid.images), len(grid.columns), squeeze=False)
    seen = dict.fromkeys(box.category for boxes in grid.columns.values() for mine in boxes.values() for box in mine)
    colours = {category: COLOURS[i % len(COLOURS)] for i, category in enumerate(seen)}
    for row, (image_id, image) in zip(panels, grid.images.items(), strict=True):
        for axes, boxes in zip(row, grid.columns.values(), strict=True):
            _draw_image(axes, image, boxes.get(image_id, ()), grid.categories, colours)
    for axes, title in zip(panels[0], grid.columns, strict=True):
        axes.set_title("\n".join(text(line) for line in title.split("\n")), fontsize=6)
    letters = int(_LETTERS * _CELL * len(grid.columns))
    figure.supxlabel("\n".join(textwrap.wrap(text(grid.note), letters)), fontsize=6)


def _draw_image(
    axes: "Axes", image: np.ndarray, boxes: Sequence[Box], categories: Mapping[int, str], colours: Mapping[int, str]
) -> None:
    """Draw the boxes, each with its class name: there are more classes than colours."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    axes.imshow(image)
    axes.set_axis_off()
    name_height = 0.06 * len(image)  # the name of an object at the upper edge stands inside its box
    for box in boxes:
        colour = colours[box.category]
        frame = Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=colour, linewidth=0.9)
        frame.set_path_effects([withStroke(linewidth=1.8, foreground="white")])  # visible on any image
        axes.add_patch(frame)
        label = text(categories[box.category]) + ("" if box.score is None else f" {box.score:.2f}")
        patch: dict[str, Any] = {"facecolor": "white", "edgecolor": colour, "linewidth": 0.5, "pad": 0.5, "alpha": 0.8}
        axes.text(box.x, max(box.y, name_height), label, fontsize=3.8, bbox=patch, clip_on=True)
