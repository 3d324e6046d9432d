"""What identifies a run: a hash of everything that decides its numbers, and of nothing else."""

import hashlib
import json
from typing import Any

from harness.spec.schema import DETECTION_VIEWS

PROTOCOL = 1  # raised when the harness itself changes what the same science means (loop, evaluation, data order)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical(science: dict[str, Any]) -> str:
    """The one text of a science dict: sorted keys, no spaces, exact numbers."""
    return _CANONICAL.encode(science)


def run_id(science: dict[str, Any]) -> str:
    return _short(science)


def _short(value: dict[str, Any]) -> str:
    """16 hex digits of the sha256 of the canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def teacher_evaluation(science: dict[str, Any], evaluated_on: str) -> str:
    """Of what decides how good a given teacher is found to be; runs that it teaches share it."""
    views = {key: science["recipe"].get(key) for key in DETECTION_VIEWS}
    return _short({**{key: science[key] for key in ("dataset", "teacher")}, "views": views, "on": evaluated_on})
