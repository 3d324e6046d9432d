"""Tables on stdout: fitted to a terminal, or in one of the formats that files have."""

import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.console.terminal import say
from harness.errors import printable
from harness.reporting import transfer
from harness.reporting.comparison import Comparison
from harness.reporting.efficiency import JobClass
from harness.reporting.failed_runs import FailedRuns, failure_notes
from harness.reporting.paper.terminal import paper_lines
from harness.reporting.tables import efficiency, formats, gap, table_folder, terminal, text
from harness.reporting.tables.terminal import TIED
from harness.reporting.tuning import tuning_text
from harness.store.store import Store
from harness.store.tuning_log import TuningLog

_ASCII = str.maketrans({"±": "+-", "▸": ">", "─": "-", "†": "x"})
_LONGER_BY = 4  # characters of a row with a "+-" in each of its columns


def print_table(comparison: Comparison, store: Store, name: str, settings: bool, titled: bool) -> None:
    """Print a table by the name that its file has, or as ``table.terminal`` and so on.

    ``settings``: with those of each line. ``titled``: under its sweep's name, as it stands among others.
    """
    layout, form = name.split(".")
    if form != "terminal":
        notes = failure_notes(comparison, store)  # read before anything is printed
        sys.stdout.write(formats.title(comparison, form) if titled else "")
        sys.stdout.write(table_folder.table_text(comparison, name))
        sys.stdout.write(formats.settings_markdown(comparison) if settings else "")
        for note in notes:
            say(note)
        return
    if layout == "table":
        print_comparison(comparison, store)
    elif layout == "paper":
        _print_lines(paper_lines(table_folder.paper_of(comparison), _width()))
    else:
        _print_fidelity(comparison)
    if settings:
        _print_settings(comparison)


def print_comparison(comparison: Comparison, store: Store, with_ranks: bool = True) -> None:
    """Print a comparison on a terminal, with the published numbers for its pairs and the causes of failed runs.

    ``with_ranks``: and with the methods' ranks over its pairs.
    """
    published, failed = table_folder.published_for(comparison), FailedRuns.of(comparison, store)
    _print_lines(terminal.comparison_lines(comparison, published, failed, _width(), with_ranks))


def print_columns(
    comparisons: Iterable[Comparison], names: Sequence[str], form: str, fidelity: bool, titled: bool
) -> None:
    """Print chosen columns of each first table, or of each one of the fidelity to the teacher.

    ``form``: ``terminal`` or one of ``formats.FORMATS``. ``titled``: under its sweep's name, as others stand beside it.

    Raises:
        UserError: a table has no column with such a name; nothing is printed then.
    """
    if form == "terminal":
        width = _width()
        tables = []
        for comparison in comparisons:
            lines = formats.chosen_lines(comparison, names, fidelity)
            _, *remarks = text.notes(comparison, lines[0])  # the first says what the title does
            title = terminal.title_lines(comparison, width)
            tables.append([*title, Text(), *terminal.section_lines(lines, remarks, width)])
        for i, table in enumerate(tables):
            _print_lines(chain([Text()] * (i > 0), table))
        return
    texts = [
        formats.title(comparison, form) * titled + formats.chosen_text(comparison, form, names, fidelity)
        for comparison in comparisons
    ]
    sys.stdout.write(("" if form == "csv" else "\n").join(texts))


def _print_fidelity(comparison: Comparison) -> None:
    section, width = text.fidelity_section(comparison), _width()
    table = terminal.section_lines(section.lines, section.remarks, width)
    _print_lines(chain(terminal.title_lines(comparison, width), [Text()], table))


def _print_settings(comparison: Comparison) -> None:
    section = text.settings_section(comparison)
    _print_lines([Text(), Text(f"{section.title}:"), *terminal.section_lines(section.lines, [], _width())])


def print_tuning(log: TuningLog, folder: Path) -> None:
    """Print the tables of a tuning, on a terminal without every trial. ``folder``: of the tables that have them."""
    if sys.stdout.isatty():
        _print_lines(terminal.tuning_lines(log, folder, _width()))
    else:
        print(tuning_text(log))


def print_transfer(networks: Sequence[transfer.ProbedNetwork]) -> None:
    """Print the linear probes of networks, fitted to a terminal or as Markdown."""
    if sys.stdout.isatty():
        _print_lines(terminal.section_lines(transfer.table_lines(networks), transfer.remarks(networks), _width()))
    else:
        print(transfer.markdown(networks))


def print_gap(tables: Sequence[gap.GapTable], as_terminal: bool) -> None:
    """Print how gains change with the teacher's size, fitted to a terminal or as Markdown."""
    if as_terminal:
        _print_lines(terminal.gap_lines(tables, _width()))
    else:
        sys.stdout.write(gap.markdown(tables))


def print_efficiency(classes: Sequence[JobClass], not_answered: str, as_terminal: bool) -> None:
    """Print what jobs asked for and used, and a profile's lines for next time, fitted to a terminal or as Markdown.

    ``not_answered``: why SLURM's accounting is missing in it; "" where it is not.
    """
    if not as_terminal:
        sys.stdout.write(efficiency.markdown(classes, not_answered))
        return
    notes, profile = efficiency.notes(classes, not_answered), efficiency.profile_lines(classes)
    table = terminal.section_lines(efficiency.table_lines(classes), notes, _width())
    _print_lines(chain(table, [Text()] * bool(profile), (Text(printable(line)) for line in profile)))


def _console() -> Console:
    """Return rich's console on stdout, whose width is COLUMNS, or else the terminal's."""
    return Console(file=getattr(sys.stdout, "rich_proxied_file", sys.stdout), highlight=False)


def _knows_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _width() -> int:
    console = _console()
    return console.width if _knows_unicode(console) else console.width - _LONGER_BY


def _print_lines(lines: Iterable[Text]) -> None:
    """Print lines on stdout, coloured where it is a terminal that shows colours. Their texts are printable."""
    console = _console()
    for line in lines:
        line.plain = line.plain.replace(TIED, " ")  # lines are broken by now
        shown = line if _knows_unicode(console) else Text(line.plain.translate(_ASCII))
        console.print(shown, no_wrap=True, overflow="ignore", crop=False)
