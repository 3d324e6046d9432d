"""The folders of a tree of image files: its parts, and in each part a folder per class."""

import difflib
from pathlib import Path
from typing import NamedTuple

from harness.data.prepare import tiny_imagenet
from harness.data.prepare.file_names import is_hidden, is_image
from harness.errors import UserError
from harness.phrases import plural, some

TRAIN, TEST = ("train", "training"), ("val", "validation", "valid", "test")  # the first that is there is taken
_ADVICE = "--val-share 0.1 of `imagefolder` holds out a tenth of each class"


class Parts(NamedTuple):
    train: Path | None
    test: Path


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name, without hidden ones.

    Raises:
        UserError: it cannot be read.
    """
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError as e:
        raise UserError(f"{folder}: {e.strerror}") from None


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the classes of a part, sorted: the names of its folders, or those that Tiny-ImageNet's table names.

    Raises:
        UserError: it has neither, or the table is damaged.
    """
    if table := tiny_imagenet.find_table(folder):
        return tuple(sorted(set(tiny_imagenet.read_classes(table).values())))
    if not _has_classes(folder):
        raise UserError(f"{folder}: expected a folder per class{_images_without_class(folder)}")
    return tuple(entry.name for entry in class_folders(folder))


def class_folders(folder: Path) -> list[Path]:
    """Return the folders of the classes of a part, by name. An empty ``images`` is none: moving Tiny-ImageNet's
    validation images into folders per class leaves it.
    """
    folders = subfolders(folder)
    return [entry for entry in folders if entry.name != "images" or len(folders) == 1 or _entries(entry)]


def find_parts(source: Path) -> Parts:
    """Find the training and the test images, in SOURCE or in the only folder of it that has some. Capital letters do
    not matter; ``train`` may be missing; a ``test`` without classes, as Tiny-ImageNet's, is not taken.

    Raises:
        UserError: there are no test images, or several folders have some; or ``train`` has another name.
    """
    root = _root(source)
    train, test = _named(root, TRAIN), _test(root)
    if test is None:
        raise UserError(f"--source {root}: {_without_test(root, train)}")
    if train is None and (misnamed := _misnamed_training(root, test)):
        raise UserError(
            f"--source {root}: no folder train; {misnamed.name} has classes of {test.name}: rename it to train, or "
            "move it away to evaluate only"
        )
    return Parts(train, test)


def find_only_part(source: Path) -> Path:
    """Find the folder that has a folder per class where nothing is held out: ``SOURCE/train``, SOURCE itself, or the
    only folder in it.

    Raises:
        UserError: there are test images too.
    """
    root = _root(source)
    if test := _test(root):
        raise UserError(f"--val-share: {test} exists already and is evaluated on; leave --val-share out")
    train, folders = _named(root, TRAIN), subfolders(root)
    if train and _has_classes(train):
        return train
    return folders[0] if len(folders) == 1 and _has_classes(folders[0]) else root


def _root(source: Path) -> Path:
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder")
    if _named(source, TRAIN + TEST):
        return source
    inner = [folder for folder in subfolders(source) if _named(folder, TRAIN + TEST)]
    if len(inner) > 1:
        raise UserError(f"--source {source}: {some([f.name for f in inner])} have parts of their own; name one of them")
    return inner[0] if inner else source


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder in a folder that has the first of these names; the very name goes before other letters."""
    folders = subfolders(folder)
    for name in names:
        for entry in sorted(folders, key=lambda entry: entry.name != name):
            if entry.name.lower() == name:
                return entry
    return None


def _test(root: Path) -> Path | None:
    for name in TEST:
        folder = _named(root, (name,))
        if folder and (name != "test" or _has_classes(folder) or tiny_imagenet.find_table(folder)):
            return folder
    return None


def _has_classes(folder: Path) -> bool:
    return [entry.name for entry in subfolders(folder)] not in ([], ["images"])


def _misnamed_training(root: Path, test: Path) -> Path | None:
    """Return a folder that is called nearly ``train`` and has a class of the test images."""
    classes = {entry.name for entry in subfolders(test)}
    for folder in subfolders(root):
        if folder != test and _near(folder, TRAIN) and any(f.name in classes for f in subfolders(folder)):
            return folder
    return None


def _near(folder: Path, names: tuple[str, ...]) -> str | None:
    return next(iter(difflib.get_close_matches(folder.name.lower(), names, n=1, cutoff=0.6)), None)


def _without_test(root: Path, train: Path | None) -> str:
    others = [entry for entry in subfolders(root) if entry != train]
    wanted = f"{TEST[0]} (or {', '.join(TEST[1:])})"
    text = f"no folder {wanted} next to {train.name}" if train else f"expected the folders train and {wanted}"
    if root.name.lower() in TRAIN + TEST and _named(root.parent, TRAIN + TEST):
        return f"{text}; {root.parent} has them"
    text += f"; found {some([entry.name for entry in others])}" if others else _images_without_class(root)
    for entry in others:
        if entry.name.lower() == "test":
            text += f"; {entry.name} does not count{_images_without_class(entry)}"
        elif near := _near(entry, TEST if train else TRAIN + TEST):
            text += f"; rename {entry.name} to {near} if it is meant"
    return text + (f"; {_ADVICE}" if train and _has_classes(train) or len(others) > 1 else "")


def _images_without_class(folder: Path) -> str:
    """Return what a folder holds that has no folder per class, as the end of a message."""
    for place in (folder, folder / "images"):
        if place.is_dir() and (count := sum(is_image(entry.name) for entry in place.iterdir())):
            return f": {place} has {plural(count, 'image')} without a class"
    return ""
