"""Escaping of text for the languages of the tables."""

import re

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", ">": "$>$", "<": "$<$", "±": r"$\pm$",
    "≈": r"$\approx$", "≠": r"$\neq$", "–": "--",
}  # fmt: skip
# The least that Markdown would interpret, as people read the source too: wrn_40_2 stays as it is.
_MARKDOWN = re.compile(
    r"[\\`|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[:])"
    r"|\*+(?=[^\s*])|(?<=[^\s*])\*+"
    r"|(?<![^\W_])_|_(?![^\W_])"
)


def escape_tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda match: "".join(f"\\{c}" for c in match[0]), text)
