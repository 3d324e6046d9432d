"""LaTeX floats: a table's blocks below each other on as few pages as hold them, and its notes under them.

Sizes are estimates, in points, as only LaTeX knows the page: a block that is wider than the page is shrunk to it.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

PACKAGES = r"% Needs \usepackage{booktabs,graphicx,xcolor}, which every TeX distribution has."
MOST_ROWS = 46  # of a block: with its heads and rules it is not higher than a page of ``article``
MOST_LETTERS = 104  # side by side: about 440 points, so that it is shrunk by a fifth at most on the narrowest pages
_PAGE = 545.0  # the height of the text of ``article`` on letter paper, less a little
_LINE, _RULE, _GAP = 9.5, 4.5, 8.0  # of a line in the size of tables and notes, of a rule, below a block
_CAPTION_LINE, _CAPTION_LETTERS, _NOTE_LETTERS = 12.0, 72, 86
_LONG, _PIECE = 40, 8  # letters of a word that is broken, as an address is, and of its pieces
_LETTER = re.compile(r"\\[A-Za-z]+\{\}|\\.|\$[^$]+\$|.")  # of an escaped text
_BEYOND = re.compile(r"[^\x00-\u017f]")  # the letters that every TeX knows


class Block(NamedTuple):
    """A tabular, and its numbers of lines and rules."""

    tabular: Sequence[str]
    lines: int
    rules: int

    @property
    def height(self) -> float:
        return _LINE * self.lines + _RULE * self.rules + _GAP


def document(lines: Iterable[str]) -> str:
    r"""Return the lines of floats as a file to \input. A letter that pdfTeX has no sign for is printed as its code."""
    text = "\n".join(lines)
    codes = [
        rf"\expandafter\providecommand\csname u8:\detokenize{{{c}}}\endcsname{{U+{ord(c):04X}}}"
        for c in sorted(set(_BEYOND.findall(text)))
    ]
    return "\n".join([PACKAGES, *codes, text])


def floats(caption: str, label: str, blocks: Iterable[Block], notes: Iterable[str]) -> Iterator[str]:
    r"""Yield the lines of floats to \input, across both columns of a page where there are two.

    All texts are escaped. ``label``: "" for none.
    """
    caption, notes = _broken(caption), map(_broken, notes)
    above = _CAPTION_LINE * (1.5 + math.ceil(len(caption) / _CAPTION_LETTERS))
    pieces = [piece for note in notes for piece in textwrap.wrap(note, 20 * _NOTE_LETTERS, break_long_words=False)]
    parts: list[tuple[float, str]] = [(block.height, "\n".join(_fitted(block))) for block in blocks]
    parts += [(_LINE * math.ceil(len(piece) / _NOTE_LETTERS), _note(piece)) for piece in pieces]
    for i, page in enumerate(_pages(parts, _PAGE - above)):
        yield from (r"\begin{table*}[tbp]", r"\centering\sloppy")
        if i == 0:
            yield rf"\caption{{{caption}}}" + (rf"\label{{{label}}}" if label else "")
            yield r"\smallskip"
        else:
            yield r"\tablename~\thetable, continued.\par\medskip"
        yield from page
        yield r"\end{table*}"


def _pages(parts: Iterable[tuple[float, str]], room: float) -> Iterator[list[str]]:
    """Yield as many parts as fit on a page, in their order, with their heights."""
    page, height = list[str](), 0.0
    for part_height, part in parts:
        if page and height + part_height > room:
            yield page
            page, height = [], 0.0
        page.append(part)
        height += part_height
    if page:
        yield page


def _fitted(block: Block) -> Iterator[str]:
    """Yield a block that is shrunk to the page's width where it is wider."""
    first, *others = block.tabular
    yield rf"\sbox0{{\footnotesize\tabcolsep=4pt{first}"
    yield from others[:-1]
    yield f"{others[-1]}}}"
    yield r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi\par\medskip"


def _note(text: str) -> str:
    return rf"{{\footnotesize\raggedright {text}\par}}"


def _broken(text: str) -> str:
    """Return an escaped text whose long words may be broken, as an address."""
    return " ".join(_broken_word(word) if len(word) > _LONG else word for word in text.split(" "))


def _broken_word(word: str) -> str:
    letters = _LETTER.findall(word)
    return r"\allowbreak{}".join("".join(letters[i : i + _PIECE]) for i in range(0, len(letters), _PIECE))
