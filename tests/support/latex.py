"""LaTeX: the texts of its tables, and documents that are compiled."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def _has_latex() -> bool:
    """Return whether LaTeX is here with the package of our tables that the smallest installations lack."""
    return (
        bool(shutil.which("kpsewhich"))
        and not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode
    )


needs_latex = pytest.mark.skipif(
    not _has_latex(),
    reason="no pdflatex with booktabs: apt-get install --no-install-recommends texlive-latex-recommended",
)
_PLAIN = {r"$\pm$": "±", "$>$": ">", "$-$": "-", r"\%": "%", r"\_": "_"}


def plain_tex(text: str) -> str:
    """Return the text that a cell or note was made from."""
    text = re.sub(r"\\textsuperscript\{(.*?)\}", r" \1", text)
    for tex, plain in _PLAIN.items():
        text = text.replace(tex, plain)
    return text.strip()


def tex_lines(tex: str) -> dict[tuple[str, str], set[str]]:
    """Return the texts of each line of a table, by its pair and name, with those that are said once with the pair."""
    lines: dict[tuple[str, str], set[str]] = {}
    pair, shared = "", set[str]()
    for line in tex.splitlines():
        if said := re.search(r"\\itshape (.*)\} \\\\$", line):
            pair, *facts = plain_tex(said[1]).split("; ")
            shared = {fact.rpartition(" ")[2] for fact in facts}
        elif line.endswith(r" \\") and pair:
            name, *cells = map(plain_tex, line.removesuffix(r"\\").split("&"))
            lines.setdefault((pair, name), set(shared)).update(cells)
        elif line == r"\end{tabular}}":
            pair = ""
    return lines


def log_of(tex: str, folder: Path, options: str = "") -> str:
    """Compile a document that inputs a table, and return its log; check that there is a document without an error."""
    (folder / "table.tex").write_text(tex, encoding="utf-8")
    needed = re.findall(r"^% Needs (\\usepackage\{.*?\})", tex, re.MULTILINE)
    document = rf"\documentclass[{options}]{{article}}{needed[0]}\begin{{document}}x\input{{table}}\end{{document}}"
    (folder / "paper.tex").write_text(document)
    subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "paper.tex"],
        cwd=folder, capture_output=True, timeout=120,
    )  # fmt: skip
    log = (folder / "paper.log").read_text(errors="replace")
    assert (folder / "paper.pdf").exists() and not re.search("^!", log, re.MULTILINE), log[-2000:]
    return log
