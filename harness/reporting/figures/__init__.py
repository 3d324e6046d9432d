"""Figures of a comparison, by matplotlib, as SVG and PDF for a two-column paper and as PNG for slides."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from harness.errors import UserError
from harness.reporting.comparison import Comparison
from harness.reporting.curves import Curves, load_curves
from harness.reporting.figures import capacity_gap, fidelity, gains, pareto, training, tuning
from harness.reporting.figures.style import FORMATS, Drawing, write_drawing
from harness.reporting.tuning import read_tuning
from harness.spec.tasks import TaskInfo
from harness.store.store import Store


def pictures_of(task: TaskInfo) -> ModuleType | None:
    """Return the module that draws what a task's models make of images; None: there is none.

    It has the functions ``name``, ``caption`` and ``write_pictures`` of ``figures.detections``.
    """
    return importlib.import_module(task.pictures) if task.pictures else None


def drawings(comparison: Comparison, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Yield every figure that the records allow. ``curves``: of the comparison's runs, by run id."""
    yield from pareto.drawings(comparison)
    yield from capacity_gap.drawings(comparison)
    yield from fidelity.drawings(comparison)
    yield from training.drawings(comparison, curves)


def write_figures(comparison: Comparison, store: Store, folder: Path) -> list[Path]:
    """Write the figures of a comparison whose records the store has, a file per figure and format.

    Raises:
        UserError: there is no figure, or matplotlib is missing.
    """
    written = [path for drawing in _drawings(comparison, store) for path in write_drawing(drawing, folder, *FORMATS)]
    if not written:
        name = comparison.contents.name
        raise UserError(f"{name}: nothing to draw yet: no pair has records of two methods, or curves")
    return written


def _drawings(comparison: Comparison, store: Store) -> Iterator[Drawing]:
    """Yield the same as ``drawings``, the gains and those of the tuning; one pair's curves are in memory at a time."""
    yield from gains.drawings(comparison)
    if comparison.contents.tuning:
        yield from tuning.drawings(read_tuning(store, comparison.contents.name), comparison)
    yield from pareto.drawings(comparison)
    yield from capacity_gap.drawings(comparison)
    yield from fidelity.drawings(comparison)
    for rows in comparison.pairs().values():
        curves = load_curves(store, [run_id for row in rows for run_id in row.run_ids])
        yield from training.drawings(replace(comparison, rows=tuple(rows)), curves)
