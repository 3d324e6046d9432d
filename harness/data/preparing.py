"""From a tree of image files to .beton files with a manifest.

Other processes decode and encode; this one alone writes, in the order of the source, so that the files do not depend on
how many there are. A folder with a manifest is complete.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from harness.data import images, imagetree, manifest
from harness.data.filling import Filling, Tell, made_with, printable, scratch
from harness.data.manifest import Manifest, Settings, Unreadable
from harness.data.workers import Workers
from harness.errors import UserError, unknown
from harness.store import files

DATASETS = ("imagenet", "imagefolder")
SAMPLED = 100  # images of each part that are tried for the size of the whole
MARGIN = 1.1  # on that estimate
LISTED = 10  # unreadable files that a message names


def prepare(
    dataset: str,
    source: Path,
    out: Path,
    settings: Settings,
    workers: int,
    skip_unreadable: bool,
    tell: Tell,
    classes: tuple[str, ...] | None = None,
) -> tuple[Manifest, bool]:
    """Writes the .beton files and then the manifest into ``out``; with False, all was there already. ``classes``: see
    ``imagetree.image_folder``.

    What a killed call left is used as far as it is what would be written now.

    Raises:
        UserError: ``source`` is not the data set, an image is unreadable, there is no room, ``out`` holds other data.
        DiskFull: there was less room than estimated; the next call goes on.
    """
    if dataset not in DATASETS:
        raise UserError(unknown("dataset to prepare", dataset, DATASETS))
    if dataset == "imagenet":
        tree = imagetree.official(source, imagetree.imagenet())
    else:
        tree = imagetree.image_folder(source, classes)
    wanted = {"dataset": dataset, **settings.model_dump(), "source": tree.fingerprint()}
    if (out / manifest.FILE).exists():
        return _found(out, wanted), False
    train = Filling("train", "train.beton", tree.train, settings, out) if tree.train else None
    test = Filling("test", "val.beton", tree.test, settings, out)
    fillings = [f for f in (train, test) if f]
    _check_room(fillings, out)
    lock = files.Lock(scratch(out) / "lock")
    if not lock.acquire():
        raise UserError(f"--out {out}: another process is preparing into it")
    try:
        for filling in fillings:
            filling.take_back()
        with Workers(workers) as processes:
            done = {f.name: f.fill(len(tree.classes), processes, tell) for f in fillings}
        left_out = tuple(file for filled in done.values() for file in filled.unreadable)
        if left_out and not skip_unreadable:
            raise UserError(_unreadable(left_out, out))
        names = tuple(map(printable, tree.classes))
        content = json.dumps([names, {name: filled.digest for name, filled in done.items()}])
        made = Manifest(
            dataset=dataset,
            version=hashlib.sha256(content.encode()).hexdigest()[:16],
            settings=settings,
            source=wanted["source"],
            classes=names,
            train=done["train"].part if train else None,
            test=done["test"].part,
            unreadable=left_out,
            made_with=made_with(),
        )
        for filling in fillings:
            os.replace(filling.unfinished, filling.finished)
        made.write(out)
        shutil.rmtree(scratch(out))
        return made, True
    finally:
        lock.release()


def _found(out: Path, wanted: dict[str, Any]) -> Manifest:
    """The manifest of what has been prepared, when it is what is wanted."""
    there = Manifest.read(out)
    held = {"dataset": there.dataset, **there.settings.model_dump(), "source": there.source}
    if different := [f"{key} {held[key]}, not {value}" for key, value in wanted.items() if held[key] != value]:
        raise UserError(
            f"--out {out}: holds a data set prepared otherwise: {'; '.join(different)}; choose another --out "
            "(source is a hash of the source files' names and sizes)"
        )
    return there


def _check_room(fillings: list[Filling], out: Path) -> None:
    """Raises UserError when the disk has less room than the files are going to take, by a sample of the images."""
    needed = 0.0
    for filling in fillings:
        sources = filling.tree.files
        sample = sources[:: -(-len(sources) // SAMPLED)]
        sizes = 0
        for file in sample:
            try:
                sizes += len(images.stored(filling.tree.folder / file.name, filling.settings).jpeg)
            except images.Unreadable:
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
