"""Paths in what leaves this machine: each is cut to its last part, which does not say where or by whom it was used."""

import getpass
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_ADDRESS = r"(?i:(?<!\w)(?:\w{1,9}\+)?(?:https?|ftp)://)[^\s'\"`<>]+"
# What parts words from each other and from paths, also in other scripts, in Markdown and as invisible characters.
_PARTING = r"\s'\"`,;=()<>\[\]{}|*#!?&+“”‘’„«»‹›…—–→：，。；、（）「」【】\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff"
# Shell variables are not parted, nor are escaped spaces and those before a part of a Windows path.
_WORD = rf"(?:\$\{{[^}}\s]{{0,99}}\}}|\$\(\w+\)|\\ | (?=[\w.-]+\\\w)|(?!{_ADDRESS})[^{_PARTING}])+"
_VARIABLE = r"\$[A-Z_]\w+|\$\{[^}\s]{0,99}\}|\$\(\w+\)|\$env:\w+|%\w+%"
_MACHINE = r"[\w.-]+@[\w.-]+:(?=\w)|[\w.@-]{2,}:(?=/|~[\w.-]*/)"  # or file:, ssh:, s3: and the like
# The beginning of an absolute path: at the root, a home folder, a variable, a drive, a share, or another machine.
_START = rf"[@:]?/|~(?:[A-Za-z_+-][\w.-]*)?[\\/]|(?:{_VARIABLE})[\\/]|[A-Za-z]:[\\/]|\\\\[\w.$-]+\\|{_MACHINE}"
_QUOTED = rf"(?P<quote>['\"`])(?:{_START})(?:(?!(?P=quote))[^\n])*(?=(?P=quote))"
_TOKEN = re.compile(rf"(?P<address>{_ADDRESS})|{_QUOTED}|(?<![\w\\]){_WORD}|{_WORD}")
_PATH = re.compile(_START)
_USERS_FOLDERS = r"home\d*|users?|u|people"
_IN_HOME = re.compile(r"[\\/](?:home|Users)[\\/]+[\w.-]", re.IGNORECASE)  # whatever stands before it
_ROOT_FOLDER = re.compile(
    r"/(data|etc|gpfs|home|lustre|media|mnt|nfs|opt|project|projects|root|scratch|srv|tmp|usr|var|work)/?"
)
_LOCAL_HOST = re.compile(r"[^.]*|[\d.]*|.*:.*|.*\.(local|internal|lan|home|localdomain)")


def without_paths(text: str) -> str:
    """Return a text with each absolute path cut to its last part. Addresses of the web stay.

    A path with spaces is known by the quotes around it.
    """
    return _TOKEN.sub(_replacement, text)


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
        text = re.sub(rf"(?<![\w./\\:~-]){re.escape(path)}(?![\w-])", lambda match: _last_part(match[0]), text)
    return without_paths(text)


def _replacement(match: re.Match[str]) -> str:
    if match["address"]:
        return _without_account(match[0])
    if match["quote"]:
        return match["quote"] + _last_part(match[0][1:])
    if match.string[max(match.start() - 1, 0) : match.start()] in (")", "]", "}") and not _IN_HOME.search(match[0]):
        return match[0]  # of "KD (Hinton)/FitNets"
    return _last_part(match[0])


def _without_account(address: str) -> str:
    """Return an address of the web without a name and password; of one of this network, the last part only."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if _LOCAL_HOST.fullmatch(host):
        return _last_part(address, is_path=True)
    return address.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)


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
    """Return whether a text is an absolute path, and not such as ``/s``, ``~2/3`` or ``T:/4``."""
    if _IN_HOME.search(text):
        return True
    if not (start := _PATH.match(text)):
        return False
    after = text[start.end() :]
    if start[0].endswith("/") and len(start[0]) <= 2 and not re.search(r"[\\/]\w|\.\w", after):
        return bool(_ROOT_FOLDER.fullmatch(text)) or after in _users()
    return bool(re.search(r"[^\W\d_]", after))


def _last_part(path: str, is_path: bool = False) -> str:
    """Return the last part of an absolute path, and any other word as it is. A folder named after a user is `home`."""
    if path.startswith("~") and path[1:] in _users():
        return "home"
    if not (is_path or _is_path(path)):
        return path
    parts = [part for part in re.split(r"[\\/]+(?! )", re.sub(r"^[\w.-]+@[\w.-]+:", "", path)) if part]
    is_home = parts[-1] in _users() or (len(parts) > 1 and re.fullmatch(_USERS_FOLDERS, parts[-2], re.IGNORECASE))
    return "home" if is_home else parts[-1]


@cache
def _users() -> frozenset[str]:
    """Return the names that this user's folders have."""
    try:
        return frozenset((getpass.getuser(), Path.home().name))
    except (OSError, KeyError, RuntimeError):  # no such account on this machine
        return frozenset()
