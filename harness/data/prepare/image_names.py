"""Names of image files in annotations, from whatever machine, and the files in an image folder that they mean."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from harness.data.prepare.coco_json import ImageEntry
from harness.errors import UserError, shorten

_TRIED = 100  # images that are looked for to find their folder


class Chosen(NamedTuple):
    folder: Path
    by_end: bool  # whether its files are named by the ends of the names only


def spellings(name: str) -> list[str]:
    """Return the names, relative to an image folder and below it, that a name may mean there, the likeliest first: the
    name; with / for \\ and a space for %20; without what it begins with (a drive, an address, folders).
    """
    readings = _readings(name)
    return list(dict.fromkeys([*filter(_is_below, readings), *(end for reading in readings for end in _ends(reading))]))


def _readings(name: str) -> list[str]:
    slashed = name.replace("\\", "/")
    return list(dict.fromkeys((name, slashed, unquote(slashed))))


def _ends(name: str) -> list[str]:
    if "://" in name:
        name = name.partition("://")[2].partition("?")[0].partition("#")[0]
    parts = [part for part in name.split("/") if part not in ("", ".")]
    above = max((i for i, part in enumerate(parts) if part == ".."), default=-1)
    return ["/".join(parts[i:]) for i in range(above + 1, len(parts))]


def folder_of(places: Sequence[Path], names: Sequence[str]) -> Chosen | None:
    """Return the first of ``places`` that has some of the images: as they are named; else, with / for \\ and a space
    for %20; else, by the ends of their names.
    """
    some_names = names[:_TRIED]
    ends = [spelling for name in some_names for spelling in spellings(name)]
    readings = [reading for name in some_names for reading in _readings(name)]
    for candidates in (list(filter(_is_below, some_names)), list(filter(_is_below, readings)), ends):
        for folder in places:
            if any(os.path.isfile(folder / name) for name in candidates):
                return Chosen(folder, by_end=candidates is ends)
    return None


def folders_with(source: Path, name: str) -> list[str]:
    """Return the folders below ``source`` that have a file of this name, whatever folder the name has."""
    last = spellings(name)[-1:]
    return sorted(folder for folder, _, files in os.walk(source) if os.path.basename("".join(last)) in files)


def names_in(folder: Path, by_end: bool, images: Sequence[ImageEntry]) -> list[str]:
    """Return the name of each image's file in the folder; one that is missing keeps its name.

    Raises:
        UserError: a name leads out of the folder, and there is no file of its last part; two names mean one file.
    """
    names = [_name_in(folder, by_end, image) for image in images]
    by_name: dict[str, ImageEntry] = {}
    for name, image in zip(names, images, strict=True):
        if (other := by_name.setdefault(name, image)) is not image:
            raise UserError(
                f"{image.place}: {shorten(image.name)} and {shorten(other.name)} both mean {name} in {folder}: name "
                "each file with its folder, relative to that one"
            )
    return names


def _name_in(folder: Path, by_end: bool, image: ImageEntry) -> str:
    whole = list(filter(_is_below, _readings(image.name)))
    if whole == [image.name] and not by_end:
        return image.name
    for name in whole if whole and not by_end else spellings(image.name):
        if os.path.isfile(folder / name):
            return name
    if not _is_below(image.name):
        raise UserError(
            f"{image.place}: expected a file's name below the image folder; found {shorten(image.name)}, and no such "
            f"file in {folder}"
        )
    return image.name


def _is_below(name: str) -> bool:
    """Return whether a name is relative and stays below its folder, except for links in the folder itself."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
