"""A run's identity: a hash of everything that decides its numbers, and of nothing else."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

PROTOCOL = 1  # raised when the harness itself changes what the same science means (loop, evaluation, data order)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical(value: dict[str, Any]) -> str:
    """Return the one text of a JSON object: sorted keys, no spaces, exact numbers."""
    return _CANONICAL.encode(value)


def digest(value: dict[str, Any]) -> str:
    """Return 16 hex digits of the sha256 of a value's canonical text: of a science's JSON form, the run id."""
    return _hash(canonical(value))


def run_id_by_seed(science: dict[str, Any]) -> Callable[[int], str]:
    """Return a function from a seed to the run id, for a science without a seed; the common text is made only once."""
    before = canonical({k: v for k, v in science.items() if k < "seed"})[:-1]
    after = canonical({k: v for k, v in science.items() if k > "seed"})[1:]
    return lambda seed: _hash(f'{before},"seed":{seed},{after}')


def _hash(text: str) -> str:
    """Return 16 hex digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
