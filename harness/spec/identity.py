"""What identifies a run: a hash of everything that decides its numbers, and of nothing else."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from harness.spec.tasks import DATASETS

PROTOCOL = 1  # raised when the harness itself changes what the same science means (loop, evaluation, data order)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical(science: dict[str, Any]) -> str:
    """The one text of a science dict: sorted keys, no spaces, exact numbers."""
    return _CANONICAL.encode(science)


def run_id(science: dict[str, Any]) -> str:
    return _short(science)


def run_id_by_seed(science: dict[str, Any]) -> Callable[[int], str]:
    """The run ids of a science that has all but the seed: what seeds have in common is made into text once."""
    before = canonical({k: v for k, v in science.items() if k < "seed"})[:-1]
    after = canonical({k: v for k, v in science.items() if k > "seed"})[1:]
    return lambda seed: _hash(f'{before},"seed":{seed},{after}')


def _short(value: dict[str, Any]) -> str:
    return _hash(canonical(value))


def _hash(text: str) -> str:
    """16 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def teacher_evaluation(science: dict[str, Any], evaluated_on: str) -> str:
    """Of what decides how good a given teacher is found to be; runs that it teaches share it."""
    views = {key: science["recipe"].get(key) for key in DATASETS[science["dataset"]["name"]].images.views}
    return _short({**{key: science[key] for key in ("dataset", "teacher")}, "views": views, "on": evaluated_on})
