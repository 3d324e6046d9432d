"""Tables as LaTeX: the lines of a pair together, several pairs below each other, and blocks of columns that fit."""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from harness.reporting.escape import escape_tex, tex_row
from harness.reporting.latex_floats import MOST_LETTERS, MOST_ROWS, Block, document, floats
from harness.reporting.tables.columns import Lines
from harness.reporting.tables.text import Section

_NUMBERS = re.compile(r"[-+\d.,\[\]± ]*")
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
_MARK = re.compile(r" ?((?:\*|\$\\dagger\$)+)$")
_OF_PAIR = re.compile("teacher's .*|seeds|seconds per run|verdict .*")
_SPACE, _NAME = 2, 8  # letters between columns, and that a column's name has at least before it is broken
_RULE = 0.5  # of a row's height
_SHRUNK = 0.12  # of the width: by so much a group is rather shrunk than parted
Cells = tuple[str, ...]


def latex(sections: Iterable[Section]) -> str:
    r"""Return floats to \input."""
    return document(line for section in sections for line in _floats(section)) + "\n"


def _floats(section: Section) -> Iterator[str]:
    """Yield a section's tables. Its first remark stands in the caption, as it says what the numbers are."""
    first, *notes = section.remarks
    caption = f"{section.title}. {first}" if section.title else first
    body = section.lines[1:]
    shared = _shared_columns(section.lines[0], body)
    groups = _column_groups(section.lines, shared)
    heads = _pair_heads(section.lines[0], body, shared)
    blocks = (_block(section.lines[0], lines, group, heads) for lines in _row_groups(body, heads) for group in groups)
    yield from floats(escape_tex(caption), "", blocks, map(escape_tex, notes))


def _shared_columns(names: Cells, body: Sequence[Cells]) -> list[int]:
    """Return the columns that each pair has one text in, as its teacher's score: these are said once, with the pair.

    Results of methods stay with them, even if they are equal; a column without any is left out.
    """
    pairs = [list(of_pair) for _, of_pair in groupby(body, key=itemgetter(0))]
    if not all(len(of_pair) > 1 for of_pair in pairs):
        return []
    texts = {i: [{line[i] for line in of_pair} for of_pair in pairs] for i in range(2, len(body[0]))}
    alike = {i: set.union(*sets) for i, sets in texts.items() if all(len(one) == 1 for one in sets)}
    return [i for i, own in alike.items() if own == {""} or _OF_PAIR.fullmatch(names[i])]


def _pair_heads(names: Cells, body: Sequence[Cells], shared: Sequence[int]) -> dict[str, list[str]]:
    """Return the lines of text above the rows of each pair: its name and what it shares."""
    first = {pair: next(of_pair) for pair, of_pair in groupby(body, key=itemgetter(0))}
    said = {pair: [pair, *(f"{names[i]} {line[i]}" for i in shared if line[i])] for pair, line in first.items()}
    return {pair: textwrap.wrap("; ".join(texts), MOST_LETTERS) for pair, texts in said.items()}


def _row_groups(body: Sequence[Cells], heads: Mapping[str, Sequence[str]]) -> Iterator[list[Cells]]:
    """Yield the lines of as many pairs as fit on a page; a pair with more is broken."""
    group, rows = list[Cells](), 0.0
    for pair, of_pair in groupby(body, key=itemgetter(0)):
        lines, head = list(of_pair), len(heads[pair]) + _RULE
        for start in range(0, len(lines), MOST_ROWS):
            piece = lines[start : start + MOST_ROWS]
            if group and rows + head + len(piece) > MOST_ROWS:
                yield group
                group, rows = [], 0.0
            group += piece
            rows += head + len(piece)
    yield group


def _column_groups(lines: Lines, shared: Sequence[int]) -> list[list[int]]:
    """Return the columns that stand side by side, after the one of names, in as few groups of like width as fit."""
    widths = [_width(column) + _SPACE for column in zip(*lines, strict=True)]
    shown = [i for i in range(2, len(widths)) if i not in shared]
    total, room = sum(widths[i] for i in shown), MOST_LETTERS - widths[1]
    number = max(1, math.ceil(total / room - _SHRUNK))
    groups: list[list[int]] = [[]]
    width = 0
    for i in shown:
        if len(groups) < number and groups[-1] and width + widths[i] / 2 > total / number:
            groups.append([])
            width = 0
        groups[-1].append(i)
        width += widths[i]
    return groups


def _width(column: Sequence[str]) -> int:
    """Return the letters of a column's widest text; its name is broken to that width between words."""
    name, *texts = column
    return max(map(len, [*name.split(), *texts, name[:_NAME]]))


def _block(
    names: Cells, lines: Sequence[Cells], group: Sequence[int], pair_heads: Mapping[str, Sequence[str]]
) -> Block:
    columns = [[names[i], *(line[i] for line in lines)] for i in (1, *group)]
    heads = [textwrap.wrap(column[0], _width(column), break_long_words=False) for column in columns]
    sides = ["l", *("r" if all(map(_NUMBERS.fullmatch, texts)) else "l" for _, *texts in columns[1:])]
    rows = [
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        *(r"\toprule", tex_row(map(_head, heads, sides))),
    ]
    pairs = [(pair_heads[pair], list(of_pair)) for pair, of_pair in groupby(lines, key=itemgetter(0))]
    for head, own in pairs:
        rows.append(r"\midrule")
        rows += [rf"\multicolumn{{{len(columns)}}}{{l}}{{\itshape {_cell(text)}}} \\" for text in head]
        rows += [tex_row(_cell(line[i]) for i in (1, *group)) for line in own]
    rows += [r"\bottomrule", r"\end{tabular}"]
    return Block(rows, max(map(len, heads)) + sum(len(head) + len(own) for head, own in pairs), 2 + len(pairs))


def _head(lines: Sequence[str], side: str) -> str:
    """Return a column's name, on as many lines as its width makes of it."""
    if len(lines) == 1:
        return escape_tex(lines[0])
    stacked = r" \\{}".join(map(escape_tex, lines))  # a bracket would be an argument
    return rf"\shortstack[{side}]{{{stacked}}}"


def _cell(text: str) -> str:
    """Return a text with the signs of numbers as LaTeX sets them, and the mark of a test raised."""
    return _MARK.sub(r"\\textsuperscript{\1}", _MINUS.sub("$-$", escape_tex(text)))
