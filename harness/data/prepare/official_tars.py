"""ImageNet's own tars, read where they are: a tar of each class's tar, and a tar of the validation images."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from harness.data.prepare import layouts
from harness.data.prepare.archives import TarFile
from harness.data.prepare.file_names import is_image
from harness.data.prepare.imagenet_labels import validation_labels
from harness.data.prepare.layouts import File, Official, Part, Tree
from harness.data.prepare.tar_members import Member, tar_members
from harness.errors import UserError
from harness.phrases import some

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def in_tars(source: Path, stated: Official) -> Tree | None:
    """List the images of ImageNet in its official tars, in the order of the unpacked dataset; return None for a source
    that has it unpacked, or has no such tars.

    Raises:
        UserError: one of the tars is missing or damaged, or they are not all of the dataset.
    """
    train, val = source / TRAIN, source / VAL
    unpacked = [name for name in ("train", "val") if (source / name).is_dir()]
    if len(unpacked) == 2 or not (train.is_file() or val.is_file()):
        return None
    if unpacked:
        raise UserError(f"--source {source}: only {unpacked[0]} is unpacked; unpack both parts or neither")
    if missing := [path.name for path in (train, val) if not path.is_file()]:
        raise UserError(f"--source {source}: {missing[0]} is missing")
    parts = _training(train, stated), _validation(val, stated, validation_labels(source))
    layouts.check_counts(*parts, stated)
    return Tree(stated.classes, *parts)


def _training(path: Path, stated: Official) -> Part:
    return _part(path, stated, _members(path), lambda name: name.parent.name)


def _validation(path: Path, stated: Official, labels: dict[str, str]) -> Part:
    members = ((PurePosixPath(member.name).name, member) for member in tar_members(path))
    return _part(path, stated, members, lambda name: labels.get(name.stem, f"no label of {name}"))


def _members(path: Path) -> Iterator[tuple[str, Member]]:
    """Yield the members of the tars of the classes, with the names that they have once they are unpacked."""
    for of_class in tar_members(path):
        folder = PurePosixPath(of_class.name)
        if of_class.is_file and folder.suffix == ".tar":
            for member in tar_members(path, of_class):
                yield f"{folder.stem}/{PurePosixPath(member.name).name}", member
        else:
            yield f"{folder.parent.name}/{folder.name}", of_class


def _part(
    path: Path, stated: Official, members: Iterable[tuple[str, Member]], class_of: Callable[[PurePosixPath], str]
) -> Part:
    numbers = {name: label for label, name in enumerate(stated.classes)}
    archive, modified = TarFile(path), layouts.found_file(path.parent, path.name, 0).modified
    files, strange, ignored = [], set(), 0
    for name, member in members:
        if not (member.is_file and is_image(PurePosixPath(name).name)):
            ignored += 1
        elif (label := numbers.get(wnid := class_of(PurePosixPath(name)))) is None:
            strange.add(wnid)
        else:
            files.append(File(name, label, member.size, modified, archive, member.start))
    if strange:
        raise UserError(f"{path}: {some(sorted(strange))}: not among the {len(numbers):,} classes")
    return Part(path, sorted(files, key=lambda file: (file.label, file.name)), ignored)
