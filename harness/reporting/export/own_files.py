"""Code of the user's own in a bundle: the modules that its runs import, as planning reads them."""

import ast
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.reporting.export.private_paths import without_paths
from harness.spec import own_data
from harness.spec.own_code import all_own_code
from harness.spec.science import Science
from harness.spec.source_code import code_of

FOLDER = "code"


def write_own_files(sciences: Iterable[Science], folder: Path) -> list[str]:
    """Write the modules that are the user's own below a folder, with each absolute path cut to its last part.

    Returns:
        A sentence on each module that is another one without its paths.

    Raises:
        UserError: one of them cannot be read.
    """
    changed = []
    sciences = list(sciences)
    of_data = [own_data.code_of(s.dataset.name) for s in sciences if ":" in s.dataset.name]
    codes = [*all_own_code(sciences), *of_data]
    files = {place: file for code in codes for place, file in code.places().items()}
    for place, file in sorted(files.items()):
        text = file.read_text(encoding="utf-8")
        shown = without_paths(text)
        path = folder / FOLDER / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown, encoding="utf-8")
        if not _is_same_code(text, shown):
            changed.append(
                f"{FOLDER}/{place} is not what ran: its absolute paths are cut, so that its runs have other ids"
            )
    return changed


def _is_same_code(text: str, other: str) -> bool:
    with suppress(SyntaxError):
        return text == other or code_of(ast.parse(text)) == code_of(ast.parse(other))
    return False
