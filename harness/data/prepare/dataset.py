"""Preparation of any kind of dataset: room on the disk, one process at a time, images into .beton files, and a
manifest that comes last, so that a folder which has one is complete.

Other processes decode and encode; only this one writes, in the order of the source, so that the files do not depend on
how many there are.
"""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from harness.data.manifest import FILE, Prepared, Unreadable, read_manifest
from harness.data.prepare.encode import Unreadable as UnreadableImage
from harness.data.prepare.layouts import File
from harness.data.prepare.part import BuiltPart, PartBuild, Request, in_the_way, made_with, scratch
from harness.data.prepare.pool import Workers, encode_file
from harness.data.prepare.resumable import journal
from harness.errors import UserError
from harness.phrases import plural
from harness.store import files
from harness.store.locks import Lock

SAMPLED = 100  # images of each part that are tried for the size of the whole
MARGIN = 1.1  # on that estimate
LISTED = 10  # unreadable files that a message names
Kind = TypeVar("Kind", bound=Prepared)


def existing_dataset(kind: type[Kind], request: Request, source: str) -> Kind | None:
    """Return the dataset that ``out`` holds already, if any; ``source``: a hash of the source.

    Raises:
        UserError: it was made of another source or with other settings, or is damaged.
    """
    if not (request.out / FILE).exists():
        return None
    existing = read_manifest(request.out, request.dataset)
    stated = {**dict(existing), **dict(existing.settings)}
    expected = {"dataset": request.dataset, **dict(request.settings), "source": source}
    if not any(part.counts.get(kind) for part in existing.parts.values() for kind in ("oriented", "turned")):
        del expected["orientation"]  # it makes no difference
    if request.settings.restart:  # the pixels are the same without
        del expected["restart"]
    if different := [f"{key} {stated[key]}, not {value}" for key, value in expected.items() if stated[key] != value]:
        raise UserError(
            f"--out {request.out}: holds a dataset that was prepared differently: {'; '.join(different)}; choose "
            "another --out (source is a hash of the source files' names and sizes)"
        )
    assert isinstance(existing, kind)
    if request.name and request.name != existing.name:
        existing = existing.model_copy(update={"name": request.name})
        existing.write(request.out)
    return existing


def complete_dataset(
    request: Request,
    source: str,
    builds: Collection[PartBuild],
    state: Callable[[dict[str, BuiltPart], dict[str, Any]], Kind],
    companions: Collection[str] = (),
) -> Kind:
    """Fill the files, and write the manifest that ``state`` makes of what each, by its name, holds, and of the fields
    that all manifests have. ``state`` is called while the files still have their unfinished names, and writes the
    further files ``companions`` into ``out``, if any. ``source``: a hash of the source.

    Work of a killed call is used as far as it equals what would be written now.

    Raises:
        UserError: an image is unreadable, there is no room, another process is at work, other files are in the way.
        DiskFull: there was less room than estimated; the next call resumes.
    """
    out = request.out
    _check_room(builds, out)
    lock = Lock(scratch(out) / "lock")
    if not lock.acquire():
        raise UserError(f"--out {out}: another process is preparing into it")
    try:
        if (out / FILE).exists():
            shutil.rmtree(scratch(out))
            raise UserError(f"--out {out}: another process has just prepared a dataset there; see what it holds")
        begun = any(journal(build.unfinished).exists() for build in builds)
        for file in (out / name for name in companions):
            if file.exists() and not begun:
                raise in_the_way(file)
        for build in builds:
            build.take_back()
        with Workers(request.workers) as processes:
            done: dict[str, BuiltPart] = {build.name: build.fill(processes) for build in builds}
        unreadable = tuple(file for part in done.values() for file in part.unreadable)
        if unreadable and not request.skip_unreadable:
            raise UserError(_unreadable(unreadable, out))
        facts = {"dataset": request.dataset, "settings": request.settings, "source": source, "name": request.name}
        made = state(done, {**facts, "unreadable": unreadable, "made_with": made_with()})
        for build in builds:
            os.replace(build.unfinished, build.finished)
        made.write(out)
        shutil.rmtree(scratch(out))
        return made
    finally:
        lock.release()


def _check_room(builds: Collection[PartBuild], out: Path) -> None:
    """Raise UserError when the disk has less room than the files will take, judged by a sample of the images."""
    needed = 0.0
    for build in builds:
        sources = build.tree.files
        sample = _sample(sources)
        sizes = 0
        for file in sample:
            try:
                sizes += len(encode_file(build.tree.folder, file, build.request.settings).jpeg)
            except UnreadableImage:
                continue
        needed += MARGIN * sizes / len(sample) * len(sources)
    written = sum(f.unfinished.stat().st_size for f in builds if f.unfinished.exists())
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed - written > free:
        raise UserError(
            f"--out {out}: about {_gigabytes(needed - written)} are needed and {_gigabytes(free)} are free on its disk"
        )


def _sample(sources: list[File]) -> list[File]:
    """Return some of a part's files, evenly spread; those of an archive by tens, as its rows may be read together."""
    together = 10 if sources[0].archive else 1
    step = together * -(-len(sources) // SAMPLED)
    return [file for i in range(0, len(sources), step) for file in sources[i : i + together]]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _unreadable(unreadable: tuple[Unreadable, ...], out: Path) -> str:
    lines = [f"{file.file}: {file.why}" for file in unreadable]
    listed = "; ".join(lines[:LISTED])
    if len(lines) > LISTED:
        path = scratch(out) / "unreadable.txt"
        files.replace_text(path, "\n".join(lines) + "\n")
        listed += f"; all of them are in {path}"
    return (
        f"{plural(len(lines), 'file is', 'files are')} unreadable: {listed}. Repair them, or leave them "
        "out with --skip-unreadable: the same command then continues"
    )
