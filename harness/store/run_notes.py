"""The forms of the notes that a job keeps in the folder of its run: progress and attempts."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from harness.errors import shorten

_COUNTED = ("epoch", "epochs", "fraction", "seconds_left")  # of a progress, whose other numbers are scores


def _checked_progress(value: dict[str, Any]) -> dict[str, Any]:
    for key in ("epoch", "epochs", "fraction"):
        if value.get(key) is None:
            raise ValueError(f"no {key}")
    for key, number in value.items():
        if key != "stage" and not (number is None or _is_number(number) or (number != number and key not in _COUNTED)):
            raise ValueError(f"{key}: expected a number")
    return {"seconds_left": None, **value}


def _checked_attempt(value: dict[str, Any]) -> dict[str, Any]:
    for key in ("log", "host"):
        if not isinstance(value.get(key), str):
            raise ValueError(f"{key}: expected text, found {shorten(value.get(key))}")
    for key in ("pid", "log_bytes", "memory_mb", "too_little_mb"):
        if type(value.get(key, 0)) is not int:
            raise ValueError(f"{key}: expected an integer, found {shorten(value[key])}")
    if not _is_number(value.get("at", 0.0)):
        raise ValueError("at: expected a number")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]


Progress = Annotated[dict[str, Any], AfterValidator(_checked_progress)]
Attempt = Annotated[dict[str, Any], AfterValidator(_checked_attempt)]


def memory_retry(attempts: Sequence[dict[str, Any]]) -> str:
    """Return that a run was tried with more memory, and with how much; empty where it was not."""
    for attempt in reversed(attempts):
        asked, too_little = attempt.get("memory_mb", 0), attempt.get("too_little_mb", 0)
        if asked > too_little > 0:
            return f"retried with {asked / 1024:.3g} GB after running out of memory with {too_little / 1024:.3g}"
    return ""
