"""Text for people on stderr, next to what a command prints for programs on stdout, and what a terminal may be sent."""

import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import printable_lines

if TYPE_CHECKING:
    from rich.console import Console


class PrintableStream:
    """A text stream that writes characters which command a terminal as their escapes: names, causes of failures and
    logs come from files that others may have written.

    rich writes its own commands past it: it asks a stream for ``rich_proxied_file``.
    """

    def __init__(self, stream: TextIO):
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def escape_output() -> None:
    """Let this process print only what is visible, line ends and tabs, whether or not a terminal reads it."""
    if not isinstance(sys.stdout, PrintableStream):
        sys.stdout = PrintableStream(sys.stdout)
    if not isinstance(sys.stderr, PrintableStream):
        sys.stderr = PrintableStream(sys.stderr)


def console() -> "Console":
    """Return rich's console on stderr. Texts that it shows have to be printable."""
    from rich.console import Console

    return Console(file=getattr(sys.stderr, "rich_proxied_file", sys.stderr))


def duration(seconds: float | None) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``, or nothing for None."""
    if seconds is None:
        return ""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def rough_duration(seconds: float) -> str:
    """Return an uncertain duration as ``duration`` does, rounded to about a twentieth of it."""
    steps = (1, 5, 10, 30, 60, 300, 600, 1800, 3600)
    step = max((step for step in steps if step <= seconds / 10), default=1)
    return duration(round(seconds / step) * step)


def say(text: str) -> None:
    """Print lines for people on stderr, on a terminal wrapped at words."""
    print(at_words(text, sys.stderr), file=sys.stderr, flush=True)


def at_words(text: str, stream: TextIO, hang: int = 2) -> str:
    """Return lines for a stream: for a terminal wrapped at words, but for commands, which are to be copied.

    ``hang``: by how many columns a line's continuation is indented more than the line.
    """
    if not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return "\n".join(line if "python -m" in line else _wrapped(line, columns, hang) for line in text.split("\n"))


def _wrapped(line: str, columns: int, hang: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + min(hang, columns // 3))
    return textwrap.fill(
        line, max(columns, 20), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
