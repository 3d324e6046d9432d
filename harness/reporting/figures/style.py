"""The style of figures: legible in print without colours too, and the same bytes for the same records.

A method has the same colour, line and marker in every figure of a sweep.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, one_line
from harness.reporting.comparison import Comparison
from harness.store import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # matplotlib may be missing

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a two-column page, and both
LETTER, LEGEND_LINE = 0.06, 0.16  # inches that the legend's font takes: a letter's width, a line's height
KEY = 0.45  # inches of a legend's line and marker
MANY = 12  # methods in one figure: it is then as wide as the page, and so is its legend
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
FORMATS: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn."""

    name: str  # its file's, without a suffix
    caption: str
    size: tuple[float, float]  # inches, without the title and the legend
    draw: Callable[[Figure], None]
    title: str = ""  # the dataset and the pair
    dpi: int = 200  # of PNG files


def render(drawing: Drawing, *formats: str) -> dict[str, bytes]:
    """Return the file's content in each of the ``formats``, which are of ``FORMATS``.

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
        _wrap_labels(figure)
        _add_title(figure, drawing.title)
        _add_legend(figure)
        for form in formats:
            out, dpi = io.BytesIO(), drawing.dpi if form == "png" else "figure"
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # a letter without a sign is drawn as a box
                figure.savefig(out, format=form, dpi=dpi, metadata=FORMATS[form])
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
    """Return colour, line and marker of the i-th method; the first 28 differ without colours too."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": LINES[i % len(LINES)],
        "marker": MARKERS[(i + i // (len(COLOURS) * len(LINES))) % len(MARKERS)],
    }


def method_looks(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the look of each method of a sweep."""
    of_cells, of_rows = (c.method for c in comparison.contents.cells), (row.method for row in comparison.rows)
    return {method: look(i) for i, method in enumerate(dict.fromkeys((*of_cells, *of_rows)))}


def pair_title(comparison: Comparison, pair: object) -> str:
    """Return the title of a figure of a pair, or of a student."""
    return f"{comparison.contents.shown_dataset}: {pair}"


def width_for(methods: int) -> float:
    return PAGE if methods > MANY else COLUMN


def set_log_ticks(axis: Any, parts: Sequence[int]) -> None:
    """Label an axis of logarithms at these parts of decades; where it has more than two and a half, at their starts."""
    low, high = axis.get_view_interval()
    axis.get_major_locator().set_params(subs=parts if high <= 300 * low else (1,))
    axis.set_major_formatter("{x:g}")


def _wrap_labels(figure: Figure) -> None:
    """Break labels of axes that are longer than their share of the figure, as with a long name in them."""
    width, height = 0.9 * figure.get_size_inches()  # as their font is larger than the legend's
    for axes in figure.axes:
        if spec := axes.get_subplotspec():
            axes.set_xlabel(wrapped(axes.get_xlabel(), width / spec.get_gridspec().ncols))
            axes.set_ylabel(wrapped(axes.get_ylabel(), height / spec.get_gridspec().nrows))


def _add_title(figure: Figure, title: str) -> None:
    if title:
        width, height = figure.get_size_inches()
        shown = wrapped(title, width)
        figure.set_size_inches(width, height + LEGEND_LINE * lines(shown))
        figure.suptitle(shown, fontsize=STYLE["axes.titlesize"])


def _add_legend(figure: Figure) -> None:
    """Add one legend for all axes, in its own space under them, so that it covers no line."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    handles = {label: handle for of_axes in pairs for handle, label in of_axes}
    if not handles:
        return
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (KEY + LETTER * max(map(len, handles)))))
    labels = [wrapped(label, width - KEY) for label in handles]
    figure.set_size_inches(width, height + LEGEND_LINE * lines(*labels) * math.ceil(len(handles) / columns))
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=columns)


def text(name: str) -> str:
    """Return a name for a figure, on one line; a leading ``_`` gets a space, as matplotlib's legend drops it."""
    shown = one_line(name)
    return f" {shown}" if shown.startswith("_") else shown


def wrapped(name: str, inches: float) -> str:
    """Return a name for a figure, on as many lines as this width makes of it. Lines end at spaces, - and _."""
    shown, begin, parts = text(name), 0, list[str]()
    for line in textwrap.wrap(shown.replace("_", "-"), max(1, int(inches / LETTER)), drop_whitespace=False):
        parts.append(shown[begin : begin + len(line)])
        begin += len(line)
    return "\n".join(parts)


def lines(*texts: str) -> int:
    """Return the most lines that a text has."""
    return max(len(one.splitlines()) for one in texts)
