"""Figures of a comparison, by matplotlib, as SVG and PDF for a two-column paper."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from harness.errors import UserError
from harness.reporting.comparison import Comparison
from harness.reporting.curves import Curves, load_curves
from harness.reporting.figures import capacity_gap, pareto, training
from harness.reporting.figures.style import FORMATS, Drawing, render
from harness.store import files
from harness.store.store import Store


def drawings(comparison: Comparison, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Yield every figure that the records allow. ``curves``: of the comparison's runs, by run id."""
    yield from pareto.drawings(comparison)
    yield from capacity_gap.drawings(comparison)
    yield from training.drawings(comparison, curves)


def write_figures(comparison: Comparison, store: Store, folder: Path) -> list[Path]:
    """Write the figures of a comparison whose records the store has, a file per figure and format.

    Raises:
        UserError: there is no figure, or matplotlib is missing.
    """
    curves = load_curves(store, comparison.contents.run_ids())
    written = []
    for drawing in drawings(comparison, curves):
        for suffix, content in render(drawing, *FORMATS).items():
            path = folder / f"{drawing.name}.{suffix}"
            files.replace(path, partial(Path.write_bytes, data=content), durable=False)
            written.append(path)
    if not written:
        name = comparison.contents.name
        raise UserError(f"{name}: nothing to draw yet: no pair has records of two methods, or curves")
    return written
