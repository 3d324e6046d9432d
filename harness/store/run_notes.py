"""The forms of the notes that a job keeps in the folder of its run: progress and attempts."""

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
    if type(value.get("pid", 0)) is not int:
        raise ValueError(f"pid: expected an integer, found {shorten(value['pid'])}")
    if not _is_number(value.get("at", 0.0)):
        raise ValueError("at: expected a number")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]


Progress = Annotated[dict[str, Any], AfterValidator(_checked_progress)]
Attempt = Annotated[dict[str, Any], AfterValidator(_checked_attempt)]
