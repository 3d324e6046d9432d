"""The columns of a table that a reader chooses, by the names in its head."""

from collections.abc import Iterable, Iterator, Sequence

from harness.errors import UserError, unknown
from harness.reporting.tables.columns import Column, Item


def chosen_columns(columns: Sequence[Column[Item]], names: Sequence[str]) -> list[Column[Item]]:
    """Return the names of pairs and methods, which stay, and the columns with these names, in the names' order.

    ``names``: each one name, or several with commas between them.

    Raises:
        UserError: there is no column with such a name.
    """
    shown = {column.name: column for column in columns if column.name}
    first, second, *_ = shown
    unnamed = [column for column in columns[: columns.index(shown[first])] if not column.name]  # the sweep, in CSV
    chosen = dict.fromkeys((first, second, *_names(names, shown)))
    return [*unnamed, *(shown[name] for name in chosen)]


def _names(texts: Sequence[str], known: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for name in [text] if text in known else map(str.strip, text.split(",")):
            if name not in known:
                raise UserError(f"--columns: {unknown('column', name, known)}")
            yield name
