"""The classes of a dataset in shards: their names, and which class a shard's label stands for."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.prepare.examples import Shard
from harness.errors import UserError
from harness.phrases import plural, some

MAX_CLASSES = 1_000_000
_FILES = ("classes.txt", "classnames.txt")
_INFO = "_info.json"
_KEYS = ("classes", "class_names", "classnames")  # in that file


class Classes(NamedTuple):
    names: tuple[str, ...]  # in the order of their labels
    label_of: dict[int | str, int]  # label in a shard, a number or a name -> label


def find_classes(source: Path, shards: Sequence[Shard], listed: tuple[str, ...] | None) -> Classes:
    """Return the classes: ``listed``, else those that the shards or a file next to them state, else the names or the
    numbers that are the labels.

    Raises:
        UserError: shards state different classes, or others than are listed.
    """
    place, names = _stated(source, shards)
    if not names and not listed:
        names = _from_labels(shards)
    if not listed or not names:
        every = listed or names or ()
        return Classes(every, _labels(every, range(len(every))))
    if not set(names) <= set(listed) and len(names) != len(listed):
        strange = [name for name in names if name not in listed]
        raise UserError(
            f"{place}: states {plural(len(names), 'class', 'classes')}, of which {some(strange)} are not among the "
            f"{len(listed):,} that are expected"
        )
    numbers = {name: i for i, name in enumerate(listed)}
    labels = [numbers[name] for name in names] if set(names) <= set(listed) else range(len(names))
    return Classes(listed, _labels(listed, range(len(listed))) | _labels(names, labels))


def _labels(names: Sequence[str], labels: Sequence[int]) -> dict[int | str, int]:
    """Return the label of each class, by its number and, where no other has it, by its name."""
    counts = Counter(names)
    by_name: dict[int | str, int] = {name: i for name, i in zip(names, labels, strict=True) if counts[name] == 1}
    return by_name | dict(enumerate(labels))


def _stated(source: Path, shards: Sequence[Shard]) -> tuple[Path, tuple[str, ...] | None]:
    by_names = {shard.classes: shard.path for shard in shards if shard.classes}
    if len(by_names) > 1:
        raise UserError(f"{' and '.join(map(str, list(by_names.values())[:2]))}: state different classes")
    if by_names:
        return next((path, names) for names, path in by_names.items())
    for path in (source / name for name in (*_FILES, _INFO)):
        if path.is_file() and (names := _read(path)):
            return path, names
    return source, None


def _read(path: Path) -> tuple[str, ...] | None:
    """Read the names of classes in a file, one a line, or in a list in JSON; return None if it has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.name != _INFO:
            names = [line for line in map(str.strip, text.splitlines()) if line]
        else:
            content = json.loads(text)
            names = next((content[key] for key in _KEYS if key in content), []) if isinstance(content, dict) else []
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path}: cannot be read: {e}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of the names of the classes, in the order of their labels")
    return tuple(names) or None


def _from_labels(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return the names that are the labels, else the numbers up to the largest label."""
    names, largest = set(), -1
    for shard in shards:
        for example in shard.examples:
            if isinstance(example.label, str):
                names.add(example.label)
            elif example.label is not None and example.label > largest:
                largest = example.label
                if largest >= MAX_CLASSES:
                    raise UserError(f"{shard.path}: {example.name}: {largest:,} is too large for the number of a class")
    if names and largest >= 0:
        raise UserError(
            f"{shards[0].path.parent}: some labels are numbers and others names; expected one of the two, or the names "
            f"in {_FILES[0]}"
        )
    return tuple(sorted(names)) or tuple(map(str, range(largest + 1)))
