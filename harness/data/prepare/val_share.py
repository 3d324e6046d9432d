"""Test images for a dataset that has none: a share of each class, chosen by the names of the files.

An image is held out or not whatever its content, the machine and the order of the disk are: within a class, files are
ordered by the sha256 of their path below the class's folder, and the first ones are held out.
"""

import hashlib
import os
from pathlib import Path

from harness.data.prepare import layouts, part_folders
from harness.data.prepare.shard_files import shard_files
from harness.errors import UserError
from harness.phrases import plural


def divided_folder(source: Path, share: float, listed: tuple[str, ...] | None = None) -> layouts.Tree:
    """List the images of ``SOURCE/<class>/*`` or ``SOURCE/train/<class>/*``, with a share of each class as the test
    part, rounded to whole images. ``listed``: see ``layouts.image_folder``.

    Raises:
        UserError: there are test images already, a class would have no image in a part, or as
            ``layouts.image_folder``.
    """
    if source.is_dir() and shard_files(source):
        raise UserError(f"--val-share {share:g}: {source} holds shards; it is for class folders only")
    folder = part_folders.find_only_part(source)
    classes = listed or part_folders.class_names(folder)
    every = layouts.labelled_part(folder, classes)
    layouts.check_classes(every, classes, all_of_them=not listed)
    by_class: dict[int, list[layouts.File]] = {}
    for file in every.files:
        by_class.setdefault(file.label, []).append(file)
    held_out: set[str] = set()
    for label, files in by_class.items():
        many = round(share * len(files))
        if not 0 < many < len(files):
            raise UserError(
                f"--val-share {share:g}: of {classes[label]}, which has {plural(len(files), 'image')}, {many} would be "
                "held out; each part needs at least one image of each class"
            )
        held_out.update(sorted((file.name for file in files), key=_key)[:many])

    def part(wanted: bool, ignored: int) -> layouts.Part:
        return layouts.Part(folder, [f for f in every.files if (f.name in held_out) == wanted], ignored)

    return layouts.Tree(classes, part(False, every.ignored), part(True, 0))


def _key(name: str) -> tuple[bytes, bytes]:
    inside = os.fsencode(name).split(os.sep.encode(), 1)[-1]
    return hashlib.sha256(inside).digest(), inside
