"""Escaping of text for the languages of the tables: one function for each, which also make a text printable."""

import html
import re
import unicodedata
from collections.abc import Iterable

from harness.errors import printable

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", ">": "$>$", "<": "$<$", "±": r"$\pm$",
    "≈": r"$\approx$", "≠": r"$\neq$", "–": "--", "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$", "≤": r"$\leq$",
    "≥": r"$\geq$", "†": r"$\dagger$", "▲": r"$\triangle$", "▼": r"$\triangledown$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}  # fmt: skip
_GREEK = "alpha beta gamma delta varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau varphi chi psi omega"
_TEX |= {letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθκλμνξπρστφχψω", _GREEK.split(), strict=True)}
# The least that Markdown would interpret, as people read the source too: wrn_40_2 stays as it is.
_MARKDOWN = re.compile(
    r"[\\`|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[:])"
    r"|\*+(?=[^\s*])|(?<=[^\s*])\*+"
    r"|(?<![^\W_])_|_(?![^\W_])"
)
# How a spreadsheet's formula begins, at a semicolon too, as some languages' spreadsheets part cells there.
_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\uff0b\uff0d\uff1d\uff20])")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


def escape_tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in unicodedata.normalize("NFC", printable(text)))


def tex_row(cells: Iterable[str]) -> str:
    r"""Return a table's row of escaped cells. A bracket or star that it begins with would be an argument of the ``\\``
    of the row before.
    """
    row = " & ".join(cells) + r" \\"
    return f"{{}}{row}" if row.startswith(("[", "*")) else row


def escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda match: "".join(f"\\{c}" for c in match[0]), printable(text))


def escape_html(text: str) -> str:
    """Return a text for an element or for an attribute in quotes."""
    return html.escape(printable(text))


def escape_csv(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: such a text gets an apostrophe before it. Numbers stay."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub(r"\1'", printable(value))
