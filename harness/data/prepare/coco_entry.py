"""An entry of a list in COCO's annotation files: its values, checked, or read for what they mean and counted."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from harness.data.prepare.annotation_file import OUTLINE
from harness.data.prepare.outlines import LARGEST_NUMBER, is_number
from harness.errors import UserError, shorten

LARGEST_ID = 2**63 - 1
LARGEST_SIDE = 65_535  # pixels: a JPEG's
_DIGITS = re.compile(r"\s*([0-9]{1,30})(?:\.0*)?\s*")
_CROWDS = {None: 0, "": 0, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # and 0, 1, false and true


class Entry:
    """An entry of one of the file's lists. ``remarks``: what was read for what it means is counted there."""

    def __init__(self, path: Path, place: str, value: Any, remarks: Counter[str]):
        self._path, self.place, self._value, self._remarks = path, place, value, remarks
        if not isinstance(value, dict):
            self.refuse("", "a mapping", value)

    def refuse(self, key: str, expected: str, value: object) -> NoReturn:
        place = f"{self.place}.{key}" if key else self.place
        raise UserError(f"{self._path}: {place}: expected {expected}; found {shorten(value)}")

    def has(self, key: str) -> bool:
        return key in self._value

    def get(self, key: str) -> Any:
        try:
            return self._value[key]
        except KeyError:
            raise UserError(f"{self._path}: {self.place}: no {key!r}") from None

    def identity(self, key: str) -> int | str:
        """Return an id: an integer, also where it is written as text or with a fraction of 0, or other text."""
        value = self.get(key)
        if type(value) is int and 0 <= value <= LARGEST_ID:
            return value
        number = _whole(value)
        if number is not None and 0 <= number <= LARGEST_ID:
            self._remarks["ids_as_text"] += 1
            return number
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, f"an integer from 0 to {LARGEST_ID:,}", value)
        return value.strip()

    def known(self, key: str, ids: dict[int | str, int], whose: str) -> int:
        """Return the value that ``ids`` has for an id."""
        value = self.get(key)
        identity = value if type(value) is int else self.identity(key)
        if identity not in ids:
            self.refuse(key, f"the id of one of the file's {whose}", value)
        return ids[identity]

    def side(self, key: str) -> int:
        """Return pixels; 0 where the file does not say."""
        value = self._value.get(key)
        number = 0 if value is None or value == "" else _whole(value)
        if number is None or not 0 <= number <= LARGEST_SIDE:
            self.refuse(key, f"an integer from 1 to {LARGEST_SIDE:,}", value)
        self._remarks["numbers_as_text"] += isinstance(value, str) and value != ""
        return number

    def box(self) -> list[float] | None:
        """Return the box, or that of the outline; None where there is neither."""
        value = self._value.get("bbox")
        if isinstance(value, list) and len(value) == 4:
            if all(is_number(v, LARGEST_NUMBER) for v in value):
                return value
            numbers: list[Any] = [_number(v) if isinstance(v, str) else v for v in value]
            if all(is_number(v, LARGEST_NUMBER) for v in numbers):
                self._remarks["numbers_as_text"] += 1
                return numbers
        elif value is None or value == [] or value == "":
            outline: list[float] | None = self._value.get(OUTLINE)
            self._remarks["boxes_of_outlines" if outline else "without_box"] += 1
            return outline
        self.refuse("bbox", f"x, y, width and height, numbers of at most {LARGEST_NUMBER:,.0f}", value)

    def area(self) -> float | None:
        """Return the area; None where it is missing, and not a number where it is none."""
        if not self.has("area"):
            return None
        value = self.get("area")
        if isinstance(value, str) and (number := _number(value)) is not None:
            self._remarks["numbers_as_text"] += 1
            value = number
        if isinstance(value, (list, dict)):
            self.refuse("area", "a finite number", value)
        return float(value) if is_number(value, LARGEST_NUMBER**2) else float("inf")

    def crowd(self) -> int:
        value = self._value.get("iscrowd", 0)
        if type(value) is int and value in (0, 1):
            return value
        key = value.strip().lower() if isinstance(value, str) else value
        if isinstance(key, (bool, float)) and key in (0, 1):
            crowd = int(key)
        elif (key is None or isinstance(key, str)) and key in _CROWDS:
            crowd = _CROWDS[key]
        else:
            self.refuse("iscrowd", "an integer from 0 to 1", value)
        self._remarks["crowd_flags"] += 1
        return crowd

    def annotation_id(self) -> object:
        """Return the id as it is, if there is one: nothing refers to it."""
        return self._value.get("id")

    def file_name(self) -> str:
        key = "file_name" if self.has("file_name") or not self.has("coco_url") else "coco_url"
        value = self.get(key)
        if not isinstance(value, str) or not value or "\0" in value or not _encodable(value):
            self.refuse(key, "a file's name", value)
        return value

    def category_name(self, number: int) -> str:
        value = self._value.get("name")
        if isinstance(value, str) and value.strip():
            return value
        if value is not None and not isinstance(value, str) and _whole(value) is None:
            self.refuse("name", "text", value)
        self._remarks["unnamed_categories"] += 1
        parent = self._value.get("supercategory")
        general = parent if isinstance(parent, str) and parent.strip() else f"category {number}"
        return general if value is None or isinstance(value, str) else str(value)


def _whole(value: object) -> int | None:
    """Return the integer that a number or a text is, if any."""
    if isinstance(value, str):
        digits = _DIGITS.fullmatch(value)
        return int(digits[1]) if digits else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _number(text: str) -> float | None:
    try:
        return float(text) if len(text) < 50 and "_" not in text else None
    except ValueError:
        return None


def _encodable(name: str) -> bool:
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False
