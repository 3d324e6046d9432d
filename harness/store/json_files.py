"""JSON files of the store, checked against the types that they stand for: they may be torn, edited or of another
version.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import Unreadable, UserError, shorten
from harness.store import checksums, files

T = TypeVar("T")
# For dataclasses that stand in files: no further keys, which a later version may have, and only finite numbers.
CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
Timestamp = Annotated[float, Field(ge=0, lt=1e11)]  # seconds since 1970 that are a date


def read_checked(kind: type[T], path: Path) -> T:
    """Return the value of type ``kind`` that a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it cannot be read.
        UserError: it holds something else; the message names the file and the key.
    """
    try:
        content = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        if path.is_symlink():
            raise UserError(f"{path}: a link to nothing") from None
        raise FileNotFoundError(*e.args, str(path)) from None
    except OSError as e:
        raise Unreadable(f"{path}: cannot be read: {e.strerror}") from None
    return parse_checked(kind, content, str(path))


def read_if_valid(kind: type[T], path: Path) -> T | None:
    """Return the value as ``read_checked`` does; None for no file, or an unusable one, which is said once."""
    try:
        return read_checked(kind, path)
    except FileNotFoundError:
        return None
    except UserError as e:
        print_note(f"{e}; left out")
        return None


def parse_checked(kind: type[T], text: str | bytes, place: str) -> T:
    """Return the value of type ``kind`` that a JSON text holds; ``place`` names it in messages.

    Raises:
        UserError: it holds something else.
    """
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{place}: damaged: not JSON") from None
    content, checksum = checksums.split_value(value)
    typed = check_value(kind, content, place)
    try:
        checksums.check_value(content, checksum)
    except checksums.WrongChecksum as e:
        raise UserError(f"{place}: damaged: {e}") from None
    return typed


def check_value(kind: type[T], value: Any, place: str) -> T:
    """Return plain data as the value of type ``kind`` that they are; ``place`` names them in messages.

    Raises:
        UserError: they are something else.
    """
    try:
        typed: T = _adapter(kind).validate_python(value)  # type: ignore[arg-type]
        return typed
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{place}: damaged: {f'{key}: ' if key else ''}{_problem(first)}") from None


def _problem(error: ErrorDetails) -> str:
    """Return what pydantic says of a value in the words of JSON."""
    if error["type"] in ("missing", "unexpected_keyword_argument"):
        return "missing" if error["type"] == "missing" else "unknown key"
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    text = re.sub(r" or an instance of \w+|valid (?=dictionary)", "", text).replace("valid tuple", "list")
    return text if error["type"] == "value_error" else f"{text}, found {shorten(error['input'])}"


@cache
def print_note(text: str) -> None:
    """Print a note about the store on stderr, once however often a command comes upon it."""
    print(f"note: {text}", file=sys.stderr, flush=True)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
