"""The style of figures: legible in print without colours too, and the same bytes for the same records."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, one_line
from harness.store import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # matplotlib may be missing

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a two-column page, and both
LETTER, LEGEND_LINE = 0.06, 0.16  # inches that the legend's font takes: a letter's width, a line's height
# Okabe and Ito 2008, "Color Universal Design": distinct under the usual colour deficiencies.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "text.parse_math": False,  # names may hold dollar signs
    "svg.hashsalt": "kd",  # and no date in the file: the same records give the same bytes
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
FORMATS: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_METADATA: dict[str, Any] = {**FORMATS, "png": {"Software": None}}
_DPI = 150  # of PNG files


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn."""

    name: str  # its file's, without a suffix
    caption: str
    size: tuple[float, float]  # inches, without the legend
    draw: Callable[[Figure], None]


def render(drawing: Drawing, *formats: str) -> dict[str, bytes]:
    """Return the file's content in each of the ``formats``, which are of ``FORMATS`` or ``png``.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib import rc_context, rcdefaults, rcParams
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need matplotlib: pip install 'kd-harness[figures]'") from None

    contents = {}
    with rc_context():
        rcdefaults()  # matplotlib has read `matplotlibrc` from the current folder, whoever wrote it
        rcParams.update(STYLE)
        figure = Figure(figsize=drawing.size, layout="constrained")
        drawing.draw(figure)
        _add_legend(figure)
        for form in formats:
            out = io.BytesIO()
            figure.savefig(out, format=form, dpi=_DPI if form == "png" else "figure", metadata=_METADATA[form])
            contents[form] = out.getvalue()
    return contents


def write_drawing(drawing: Drawing, folder: Path, *formats: str) -> list[Path]:
    """Write a figure into a folder, a file per format.

    Raises:
        UserError: matplotlib is missing.
    """
    contents = {folder / f"{drawing.name}.{form}": content for form, content in render(drawing, *formats).items()}
    for path, content in contents.items():
        files.replace(path, partial(Path.write_bytes, data=content), durable=False)
    return list(contents)


def look(i: int) -> dict[str, Any]:
    """Return colour, line and marker of the i-th method; the first 28 differ."""
    turn = i // len(COLOURS)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": LINES[turn % len(LINES)],
        "marker": MARKERS[(i + turn) % len(MARKERS)],
    }


def _add_legend(figure: Figure) -> None:
    """Add one legend for all axes, in its own space under them, so that it covers no line."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    handles = {label: handle for of_axes in pairs for handle, label in of_axes}
    if not handles:
        return
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (0.45 + LETTER * max(map(len, handles)))))
    figure.set_size_inches(width, height + LEGEND_LINE * math.ceil(len(handles) / columns))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def text(name: str) -> str:
    """Return a name for a figure, on one line; a leading ``_`` gets a space, as matplotlib's legend drops it."""
    shown = one_line(name)
    return f" {shown}" if shown.startswith("_") else shown
