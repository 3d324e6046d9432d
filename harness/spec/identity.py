"""What identifies a run: a hash of everything that decides its numbers, and of nothing else."""

import hashlib
import json
from typing import Any

PROTOCOL = 1  # raised when the harness itself changes what the same science means (loop, evaluation, data order)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical(science: dict[str, Any]) -> str:
    """The one text of a science dict: sorted keys, no spaces, exact numbers."""
    return _CANONICAL.encode(science)


def run_id(science: dict[str, Any]) -> str:
    """16 hex digits of the sha256 of the canonical text."""
    return hashlib.sha256(canonical(science).encode()).hexdigest()[:16]
