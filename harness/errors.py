"""The user's mistakes, told in one line, and the exit codes of every command."""

import difflib
from collections.abc import Iterable

EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class UserError(Exception):
    """Wrong input. Its text is the whole message: where, what was found, what was expected."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """``unknown method 'kdd'; did you mean 'kd'? Valid: crd, kd``."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    shown = ", ".join(valid[:30]) + (f", ... ({len(valid)} in all)" if len(valid) > 30 else "")
    return f"unknown {kind} {shorten(name)}{hint} Valid: {shown}"


def shorten(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
