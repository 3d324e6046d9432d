"""Errors that the user can mend, the wording of messages, and the exit codes of every command."""

import difflib
from collections.abc import Iterable, Sequence

EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class UserError(Exception):
    """Wrong input. Its text is the whole message: the place, what stands there and what was expected.

    ``problems``: a line for each of several mistakes, below the message.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()):
        super().__init__("\n  ".join([message, *problems]))
        self.lines = (message, *problems)


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """Return ``unknown method 'kdd'; did you mean 'kd'? Valid: crd, kd``."""
    valid = sorted(valid)
    cutoff = 0.5 if len(str(name)) < 4 else 0.55  # of two letters, one wrong leaves a half
    close = difflib.get_close_matches(str(name)[:200], valid, n=1, cutoff=cutoff)
    if not valid:
        return f"unknown {kind} {shorten(name)}: there are none here"
    hint = f"; did you mean {close[0]!r}?" if close else "."
    shown = ", ".join(valid[:30]) + (f", ... ({len(valid)} in all)" if len(valid) > 30 else "")
    return f"unknown {kind} {shorten(name)}{hint} Valid: {shown}"


def shorten(value: object, limit: int = 80) -> str:
    """Return a value's repr, cut to ``limit`` characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(text: object, limit: int = 2000) -> str:
    """Return a message as one printable line: names in it may hold newlines or a terminal's control characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
