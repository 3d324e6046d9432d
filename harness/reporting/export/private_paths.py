"""Paths in what leaves this machine: each is cut to its last part, which does not say where or by whom it was used."""

import getpass
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_WORD = re.compile(r"""[^\s'"`,;=()<>\[\]{}|]+""")
_ADDRESS = re.compile(r"https?://")
# It begins at the root, a home folder, a variable, a drive, a share, on another machine, or with file: or ssh:.
_PATH = re.compile(r"/|~[\w.-]*/|\$\w+/|[A-Za-z]:[\\/]|\\\\|[^/]*:[/~]")


def without_paths(text: str) -> str:
    """Return a text with each absolute path cut to its last part. Addresses of the web stay."""
    return _WORD.sub(lambda match: _last_part(match[0]), text)


def without_paths_in(value: Any, is_text: bool = False) -> Any:
    """Return plain data with each absolute path cut to its last part; ``is_text``: it may hold words besides."""
    if isinstance(value, Mapping):
        return {key: without_paths_in(part, key == "note") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_paths_in(part, is_text) for part in value)
    if not isinstance(value, str):
        return value
    return without_paths(value) if is_text or not _is_path(value) else _last_part(value)


def as_written(text: str, data: Any) -> str:
    """Return a sweep file's text with each absolute path cut to its last part, in comments too.

    ``data`` is what the text says: a path in it may have spaces.
    """
    for path in sorted(set(_paths(data)), key=len, reverse=True):
        text = text.replace(path, _last_part(path))
    return without_paths(text)


def _paths(value: Any) -> Iterator[str]:
    """Yield the absolute paths in plain data."""
    if isinstance(value, str):
        yield from [value] * _is_path(value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _paths(part) if key != "note" else ()
    elif isinstance(value, list):
        for part in value:
            yield from _paths(part)


def _is_path(text: str) -> bool:
    return bool(_PATH.match(text)) and not _ADDRESS.match(text)


def _last_part(path: str) -> str:
    """Return the last part of an absolute path, and any other word as it is. A folder named after a user is `home`."""
    parts = [part for part in re.split(r"[\\/]", path) if part]
    if not parts or not _is_path(path):
        return path
    is_home = parts[-1] in _users() or (len(parts) > 1 and parts[-2] in ("home", "Users"))
    return "home" if is_home else parts[-1]


@cache
def _users() -> frozenset[str]:
    """Return the names that this user's folders have."""
    try:
        return frozenset((getpass.getuser(), Path.home().name))
    except (OSError, KeyError, RuntimeError):  # no such account on this machine
        return frozenset()
