"""Failed runs by their cause."""

import re
from collections.abc import Iterable

from harness.spec.lines import grouped
from harness.store.store import Failure


def by_cause(failures: Iterable[Failure]) -> list[list[Failure]]:
    """Return failures in groups of one cause, in the order in which each first appears."""
    return list(grouped(failures, signature).values())


def signature(failure: Failure) -> tuple[str, ...]:
    """Return a key that failures of one cause share: kind, message without ids and numbers, and place in the code."""
    words = re.sub(r"\b[0-9a-f]{16}\b|\d+", "#", failure.cause)
    raised = re.findall(r'File "(?:.*/)?(.+?)", line (\d+), in (\S+)', failure.details)
    return failure.kind, words, *(raised[-1] if raised and failure.kind == "code" else ())
