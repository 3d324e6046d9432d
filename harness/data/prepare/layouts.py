"""Image files on disk, their classes and labels: class folders, and ImageNet as it is distributed."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from harness.data.prepare import part_folders, tiny_imagenet
from harness.data.prepare.archives import Archive
from harness.data.prepare.file_names import EXTENSIONS, is_hidden, is_image, leads_back
from harness.data.prepare.imagenet_labels import validation_labels
from harness.errors import UserError
from harness.phrases import some

_KAGGLE = Path("ILSVRC/Data/CLS-LOC")
PartName = Literal["train", "test"]


class File(NamedTuple):
    name: str  # relative to the part's folder; of an image in an archive, the name that it has there
    label: int
    size: int  # bytes; those of all the shard where its own are not known
    modified: int  # nanoseconds: the last change of content, owner or permissions
    archive: Archive | None = None  # what holds its bytes; None: a file in the part's folder
    position: int = 0  # of its bytes in the archive
    rank: int = 0  # among the images of its label, where files are read in another order

    @property
    def shown(self) -> str:
        """Return its name for messages."""
        return f"{self.archive.path.name}/{self.name}" if self.archive else self.name


@dataclass(frozen=True)
class Part:
    """The training or the test images, in the order in which they are read. They are listed by label, then by rank:
    class folders are read in that order, which is that of names.
    """

    folder: Path
    files: list[File]
    ignored: int  # other files in the same folders, hidden folders, and links to a folder that they are in


@dataclass(frozen=True)
class Tree:
    classes: tuple[str, ...]  # in the order of their labels
    train: Part | None
    test: Part

    @property
    def parts(self) -> dict[PartName, Part]:
        return {"train": self.train, "test": self.test} if self.train else {"test": self.test}

    def fingerprint(self) -> str:
        """Return 16 hex digits of the classes, names, labels and sizes, wherever the files are."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for part in (self.train, self.test):
            digest.update(b"part")
            for file in part.files if part else ():
                digest.update(os.fsencode(file.name) + f"\0{file.label}\0{file.size}\0".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Official:
    """The classes and counts that a dataset states for itself."""

    name: str
    classes: tuple[str, ...]
    train: int  # images
    train_per_class: tuple[int, int]  # from, to
    test_per_class: int


def imagenet() -> Official:
    """Return the facts of ILSVRC2012's classification (Russakovsky et al. 2015, arXiv:1409.0575); its classes are
    sorted, as in models.
    """
    classes = (resources.files("harness.data.prepare") / "imagenet_classes.txt").read_text().split()
    return Official("ImageNet (ILSVRC2012)", tuple(classes), 1_281_167, (732, 1300), 50)


def class_list(named: str) -> tuple[str, ...]:
    """Read the class names in a file, one a line; ``imagenet`` stands for ImageNet's.

    Raises:
        UserError: there is no such file, or it names a class twice or none.
    """
    if named == "imagenet":
        return imagenet().classes
    try:
        names = [line for line in map(str.strip, Path(named).read_text(encoding="utf-8-sig").splitlines()) if line]
    except (OSError, ValueError) as e:
        cause = (e.strerror if isinstance(e, OSError) else None) or e
        raise UserError(
            f"--classes {named}: {cause}; expected a file of class names, one a line, or imagenet"
        ) from None
    if not names or (twice := [name for name, count in Counter(names).items() if count > 1]):
        raise UserError(f"--classes {named}: " + (f"names {some(twice)} twice" if names else "names no class"))
    return tuple(names)


def image_folder(source: Path, listed: tuple[str, ...] | None = None) -> Tree:
    """List the images of ``SOURCE/{train,val}/<class>/*``; labels are the ranks of the classes' names. ``train`` may be
    missing. A part may have Tiny-ImageNet's table of classes instead of their folders.

    ``listed``: classes in the order of their labels, such as those of a model that is evaluated on a sample; the tree
    may have only some of them.

    Raises:
        UserError: it is not such a tree, or its parts have different classes, or one that is not listed.
    """
    train, test = part_folders.find_parts(source)
    classes = listed or part_folders.class_names(train or test)
    if train and not listed and (different := _different(classes, part_folders.class_names(test))):
        raise UserError(f"{train} and {test} have different classes: {different}")
    tree = Tree(classes, labelled_part(train, classes) if train else None, labelled_part(test, classes))
    for part in tree.parts.values():
        check_classes(part, classes, all_of_them=not listed)
    return tree


def _different(train: tuple[str, ...], test: tuple[str, ...]) -> str:
    """Return in words which classes only one of the parts has."""
    sides = (("training", sorted(set(train) - set(test))), ("test", sorted(set(test) - set(train))))
    return "; ".join(f"only the {part} images have {some(names)}" for part, names in sides if names)


def labelled_part(folder: Path, classes: tuple[str, ...]) -> Part:
    """List the images of a part, in folders per class or with Tiny-ImageNet's table.

    Raises:
        UserError: it has a class that is not among these, or the table is damaged.
    """
    if (table := tiny_imagenet.find_table(folder)) is None:
        return _in_class_folders(folder, classes)
    images = tiny_imagenet.image_folder(table)
    return _flat(folder, classes, tiny_imagenet.read_classes(table), inside=images.relative_to(folder))


def check_classes(part: Part, classes: tuple[str, ...], all_of_them: bool) -> None:
    """Raise UserError when a part has no image, or, if it should have ``all_of_them``, none of some class."""
    present = {file.label for file in part.files}
    empty = [name for label, name in enumerate(classes) if label not in present]
    if empty and (all_of_them or not present):
        raise UserError(f"{part.folder}: no image of {some(empty)} (images are {', '.join(EXTENSIONS)})")


def official(source: Path, stated: Official) -> Tree:
    """List the images of ImageNet in class folders, also as in Kaggle's archive, and with the official flat validation
    folder.

    Raises:
        UserError: it is not all of the dataset, or holds something else.
    """
    of_kaggle = (source / _KAGGLE).is_dir()
    train, test = part_folders.find_parts(source / _KAGGLE if of_kaggle else source)
    if train is None:
        raise UserError(f"{source}: no folder train; to evaluate only, prepare it as `imagefolder`")
    training = _in_class_folders(train, stated.classes)
    if part_folders.subfolders(test):
        held_out = _in_class_folders(test, stated.classes)
    else:
        held_out = _flat(test, stated.classes, validation_labels(source if of_kaggle else test.parent))
    check_counts(training, held_out, stated)
    return Tree(stated.classes, training, held_out)


def _in_class_folders(folder: Path, classes: tuple[str, ...]) -> Part:
    files: list[File] = []
    if unknown := sorted(set(part_folders.class_names(folder)) - set(classes)):
        raise UserError(
            f"{folder}: {some(unknown)}: not among the {len(classes):,} classes; other images are prepared as "
            "`imagefolder` without --classes"
        )
    ignored = len(os.listdir(folder)) - len(part_folders.class_folders(folder))
    for label, name in enumerate(classes):
        for place, folders, names in os.walk(folder / name, followlinks=True):
            left_out = {name for name in folders if is_hidden(name) or leads_back(os.path.join(place, name))}
            folders[:] = sorted(set(folders) - left_out)
            inside = os.path.relpath(place, folder)
            images = sorted(filter(is_image, names))
            ignored += len(left_out) + len(names) - len(images)
            files += (found_file(folder, os.path.join(inside, name), label) for name in images)
    return Part(folder, files, ignored)


def _flat(folder: Path, classes: tuple[str, ...], labels: dict[str, str], inside: Path = Path()) -> Part:
    """List images that are in one folder, ``inside`` the part's, in label order, so that the part equals the one in
    class folders. ``labels``: file name, with or without its ending -> class.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    entries = sorted(os.listdir(folder / inside))
    images = [name for name in entries if is_image(name)]
    class_of = {name: labels.get(name, labels.get(Path(name).stem, "")) for name in images}
    if strange := [name for name in images if class_of[name] not in numbers]:
        raise UserError(f"{folder / inside}: no label for {some(strange)}")
    files = [found_file(folder, str(inside / name), numbers[class_of[name]]) for name in images]
    return Part(folder, sorted(files, key=lambda file: (file.label, file.name)), len(entries) - len(images))


def found_file(folder: Path, name: str, label: int) -> File:
    """Return what is known of a file before it is read."""
    try:
        status = os.stat(folder / name)
    except OSError:  # a dangling link: reading it will say so
        return File(name, label, 0, 0)
    return File(name, label, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns))


def check_counts(training: Part, held_out: Part, stated: Official) -> None:
    """Raise UserError when a part has other numbers of images than are stated."""
    _check(training, stated, stated.train_per_class, stated.train)
    _check(held_out, stated, (stated.test_per_class,) * 2, stated.test_per_class * len(stated.classes))


def _check(part: Part, stated: Official, per_class: tuple[int, int], images: int) -> None:
    counts = Counter(file.label for file in part.files)
    low, high = per_class
    wrong = [f"{name} has {counts[i]:,}" for i, name in enumerate(stated.classes) if not low <= counts[i] <= high]
    if not wrong and len(part.files) == images:
        return
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    which = f" (every class has {each})" if not wrong else f"; classes with other than {each}: {some(wrong)}"
    raise UserError(
        f"{part.folder}: {len(part.files):,} images, {stated.name} states {images:,}{which}; "
        "a part of it is prepared as `imagefolder`"
    )
