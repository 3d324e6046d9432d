"""Images of a shard with what the shard says of them, before labels are numbers of classes."""

from pathlib import Path
from typing import NamedTuple

from harness.data.prepare.archives import Archive


class Example(NamedTuple):
    name: str | None  # None: the shard has no names
    label: int | str | None  # a number, the name of a class, or missing
    size: int  # bytes; those of all the shard where its own are not known
    archive: Archive
    position: int  # in the archive


class Shard(NamedTuple):
    path: Path
    examples: list[Example]  # as they follow one another
    classes: tuple[str, ...] | None  # names of classes that it states
    ignored: int  # other members
