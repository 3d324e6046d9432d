"""What preparing any kind of data set has in common: room, one process at a time, images into .beton files, and a
manifest that comes last, so that a folder which has one is complete.

Other processes decode and encode; this one alone writes, in the order of the source, so that the files do not depend on
how many there are.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from harness.data.manifest import Prepared, Unreadable
from harness.data.prepare import encode
from harness.data.prepare.part import BuiltPart, PartBuild, Tell, in_the_way, scratch
from harness.data.prepare.pool import Workers
from harness.data.prepare.resumable import journal
from harness.errors import UserError
from harness.store import files

SAMPLED = 100  # images of each part that are tried for the size of the whole
MARGIN = 1.1  # on that estimate
LISTED = 10  # unreadable files that a message names
Kind = TypeVar("Kind", bound=Prepared)


def check_same(there: Prepared, out: Path, wanted: dict[str, Any]) -> None:
    """Raises UserError when what ``out`` holds is not of the dataset, settings and source that are ``wanted``."""
    said = there.model_dump()
    held = said | said["settings"]
    if different := [f"{key} {held[key]}, not {value}" for key, value in wanted.items() if held[key] != value]:
        raise UserError(
            f"--out {out}: holds a data set prepared otherwise: {'; '.join(different)}; choose another --out "
            "(source is a hash of the source files' names and sizes)"
        )


def complete_dataset(
    out: Path,
    fillings: Collection[PartBuild],
    workers: int,
    skip_unreadable: bool,
    tell: Tell,
    state: Callable[[dict[str, BuiltPart]], Kind],
    beside: Collection[str] = (),
) -> Kind:
    """Fills the files, and writes the manifest that ``state`` makes of what each, by its name, holds. Called while they
    still have their unfinished names, ``state`` also writes the files ``beside`` them into ``out``, if any.

    What a killed call left is used as far as it is what would be written now.

    Raises:
        UserError: an image is unreadable, there is no room, another process is at it, other files are in the way.
        DiskFull: there was less room than estimated; the next call goes on.
    """
    _check_room(fillings, out)
    lock = files.Lock(scratch(out) / "lock")
    if not lock.acquire():
        raise UserError(f"--out {out}: another process is preparing into it")
    try:
        begun = any(journal(filling.unfinished).exists() for filling in fillings)
        for file in (out / name for name in beside):
            if file.exists() and not begun:
                raise in_the_way(file)
        for filling in fillings:
            filling.take_back()
        with Workers(workers) as processes:
            done: dict[str, BuiltPart] = {f.name: f.fill(processes, tell) for f in fillings}
        left_out = tuple(file for filled in done.values() for file in filled.unreadable)
        if left_out and not skip_unreadable:
            raise UserError(_unreadable(left_out, out))
        made = state(done)
        for filling in fillings:
            os.replace(filling.unfinished, filling.finished)
        made.write(out)
        shutil.rmtree(scratch(out))
        return made
    finally:
        lock.release()


def content_version(content: Any) -> str:
    """16 hex digits of what a data set holds, as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _check_room(fillings: Collection[PartBuild], out: Path) -> None:
    """Raises UserError when the disk has less room than the files are going to take, by a sample of the images."""
    needed = 0.0
    for filling in fillings:
        sources = filling.tree.files
        sample = sources[:: -(-len(sources) // SAMPLED)]
        sizes = 0
        for file in sample:
            try:
                sizes += len(encode.encode_image(filling.tree.folder / file.name, filling.settings).jpeg)
            except encode.Unreadable:
                continue
        needed += MARGIN * sizes / len(sample) * len(sources)
    held = sum(f.unfinished.stat().st_size for f in fillings if f.unfinished.exists())
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed - held > free:
        raise UserError(
            f"--out {out}: about {_gigabytes(needed - held)} are needed and {_gigabytes(free)} are free on its disk"
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _unreadable(left_out: tuple[Unreadable, ...], out: Path) -> str:
    lines = [f"{file.file}: {file.why}" for file in left_out]
    listed = "; ".join(lines[:LISTED])
    if len(lines) > LISTED:
        path = scratch(out) / "unreadable.txt"
        files.replace_text(path, "\n".join(lines) + "\n")
        listed += f"; all of them are in {path}"
    return (
        f"{len(lines):,} files are unreadable: {listed}. Mend them, or leave them out with --skip-unreadable: "
        "the same command goes on"
    )
