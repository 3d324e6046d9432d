"""Text for people on stderr, next to what a command prints for programs on stdout."""

import sys


def duration(seconds: float | None) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``, or nothing for None."""
    if seconds is None:
        return ""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def say(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)
