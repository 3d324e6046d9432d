"""The forms of the notes that a job keeps in the folder of its run: progress and attempts."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from harness.errors import shorten

_OTHER_NODE = "on another node than "
_NODE = re.compile(r"[\w.-]+")
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
    for key in ("pid", "log_bytes", "memory_mb", "too_little_mb", "minutes", "too_few_minutes"):
        if type(value.get(key, 0)) is not int or not _is_number(value.get(key, 0)):
            raise ValueError(f"{key}: expected an integer, found {shorten(value[key])}")
    nodes = value.get("avoided_nodes", [])
    if not (isinstance(nodes, list) and all(isinstance(node, str) and _NODE.fullmatch(node) for node in nodes)):
        raise ValueError(f"avoided_nodes: expected a list of nodes' names, found {shorten(nodes)}")
    if not _is_number(value.get("at", 0.0)):
        raise ValueError("at: expected a number")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]


Progress = Annotated[dict[str, Any], AfterValidator(_checked_progress)]
Attempt = Annotated[dict[str, Any], AfterValidator(_checked_attempt)]


def retry_texts(attempts: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a run's starts asked for that earlier ones had not, and why, each once and in order."""
    return list(dict.fromkeys(text for attempt in attempts for text in _of_attempt(attempt)))


def last_retry(attempts: Sequence[dict[str, Any]]) -> str:
    """Return the texts of the last start that has any, in one line; empty where none has."""
    each = (retry_texts([attempt]) for attempt in reversed(attempts))
    return "; ".join(next(filter(None, each), []))


def without_nodes(text: str) -> str:
    """Return a text of ``retry_texts`` without the names of nodes."""
    return text.partition(_OTHER_NODE)[0] + "on another node" if _OTHER_NODE in text else text


def _of_attempt(attempt: dict[str, Any]) -> Iterator[str]:
    memory, too_little = attempt.get("memory_mb", 0), attempt.get("too_little_mb", 0)
    if memory > too_little > 0:
        yield f"retried with {_gigabytes(memory)} GB after running out of memory with {_gigabytes(too_little)}"
    minutes, too_few = attempt.get("minutes", 0), attempt.get("too_few_minutes", 0)
    if minutes > too_few > 0:
        yield f"retried with {minutes} minutes after {too_few} {'was' if too_few == 1 else 'were'} too few"
    if nodes := attempt.get("avoided_nodes"):
        yield f"retried {_OTHER_NODE}{', '.join(nodes)}"


def _gigabytes(megabytes: int) -> str:
    return f"{round(megabytes / 1024, 2):g}"
