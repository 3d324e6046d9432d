"""Checksums in the store's own files, so that no bit of them changes unnoticed. Imports neither torch nor pyarrow.

A file's checksum is the sha256 of all its bytes, taken while 64 zeros stand in the checksum's own place: readers of
Parquet and safetensors see it as an entry of the file's metadata. A JSON value has it as a further key, or as a further
element at the end. A file whose form others define has it in a file of its own, which ``sha256sum -c`` reads.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.store import files

KEY = "checksum"
ZEROS = "0" * 64
SINCE = 7  # the version of the schema from which on records carry checksums
_IN_FILE = re.compile(KEY.encode() + rb'(?:\x18@|":")([0-9a-f]{64})')  # in Parquet's metadata, in that of safetensors


class WrongChecksum(ValueError):
    """Content that differs from its checksum."""

    def __init__(self) -> None:
        super().__init__("its content does not match its checksum")


def seal_bytes(content: bytes) -> bytes:
    """Return a file's content with its checksum in place of the ``ZEROS`` that its metadata have under ``KEY``."""
    before, after = _around(content)
    return before + _digest(before, after) + after


def check_bytes(content: bytes) -> bool:
    """Check a file's content; return False where it has no checksum, as an earlier harness wrote it.

    Raises:
        WrongChecksum: a byte has changed.
    """
    try:
        before, after = _around(content)
    except ValueError:
        return False
    if content[len(before) : len(content) - len(after)] != _digest(before, after):
        raise WrongChecksum
    return True


def check_sealed(path: Path) -> None:
    """Check a file that ``seal_bytes`` has sealed.

    Raises:
        UserError: a byte has changed, or its checksum is missing.
    """
    try:
        sealed = check_bytes(files.read_bytes(path))
    except WrongChecksum:
        sealed = False
    if not sealed:
        raise UserError(f"{path}: damaged: its content does not match its checksum")


def _around(content: bytes) -> tuple[bytes, bytes]:
    """Return what stands before and after the checksum: the last one, as rows may hold such text."""
    *_, (start, end) = [(0, 0), *(match.span(1) for match in _IN_FILE.finditer(content))]
    if not end:
        raise ValueError("no checksum")
    return content[:start], content[end:]


def _digest(before: bytes, after: bytes) -> bytes:
    digest = hashlib.sha256(before)
    digest.update(ZEROS.encode())
    digest.update(after)
    return digest.hexdigest().encode()


def seal_value(value: Any) -> Any:
    """Return an object or a list with its checksum, for a JSON file."""
    checksum = _of_value(json.loads(json.dumps(value)))
    return {**value, KEY: checksum} if isinstance(value, dict) else [*value, {KEY: checksum}]


def open_value(value: Any) -> Any:
    """Return what ``seal_value`` was given; a value without a checksum as it is.

    Raises:
        WrongChecksum: it is something else.
    """
    content, stated = split_value(value)
    check_value(content, stated)
    return content


def split_value(value: Any) -> tuple[Any, Any]:
    """Return a value without its checksum, and the checksum; None where it has none."""
    if isinstance(value, dict) and KEY in value:
        return {key: part for key, part in value.items() if key != KEY}, value[KEY]
    if isinstance(value, list) and value and isinstance(value[-1], dict) and value[-1].keys() == {KEY}:
        return value[:-1], value[-1][KEY]
    return value, None


def check_value(content: Any, stated: Any) -> None:
    """Check what ``split_value`` returned.

    Raises:
        WrongChecksum: they do not belong together.
    """
    if stated is not None and stated != _of_value(content):
        raise WrongChecksum


def _of_value(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_with_sum(path: Path, content: bytes) -> None:
    """Replace a file, and the file of its checksum.

    Raises:
        DiskFull: the disk is full.
    """
    _sum_file(path).unlink(missing_ok=True)
    files.replace(path, lambda temporary: temporary.write_bytes(content))
    files.replace_text(_sum_file(path), _sum(path))


def read_with_sum(path: Path) -> bytes:
    """Return the content of a file, checked against the file of its checksum where there is one.

    Raises:
        FileNotFoundError: there is no such file.
        WrongChecksum: it has changed.
    """
    content = files.read_bytes(path)
    if _sum_file(path).exists() and files.read_bytes(_sum_file(path)) != _sum(path).encode():
        raise WrongChecksum
    return content


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sum(path: Path) -> str:
    return f"{files.sha256(path)}  {path.name}\n"
