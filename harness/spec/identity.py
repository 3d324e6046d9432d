"""A run's identity: a hash of everything that decides its numbers, and of nothing else."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel

PROTOCOL = 1  # raised when the harness itself changes what the same science means (loop, evaluation, data order)


def _json_form(value: Any) -> Any:
    if isinstance(value, BaseModel):  # a part of a recipe
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True, default=_json_form
)


def canonical(value: dict[str, Any]) -> str:
    """Return the one text of a JSON object: sorted keys, no spaces, exact numbers."""
    return _CANONICAL.encode(value)


def digest(value: dict[str, Any]) -> str:
    """Return 16 hex digits of the sha256 of a value's canonical text: of a science's JSON form, the run id."""
    return of_text(canonical(value))


def of_text(text: str) -> str:
    """Return the digest of a value from its canonical text."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
