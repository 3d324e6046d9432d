"""The places where a dataset in COCO's format has its annotation files and images."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from harness.data.coco_manifest import Category
from harness.data.prepare import coco_json, image_names, layouts, part_folders
from harness.data.prepare.coco_json import Instances
from harness.errors import UserError
from harness.phrases import some

ANNOTATIONS = "annotations"  # the folder
_PREFIX = "instances_"
ROBOFLOW = "_annotations.coco.json"  # in a folder of _FOLDERS, next to the images
_FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
LISTED = 5  # different categories that a message names


@dataclass(frozen=True)
class Part:
    """The training or the test images."""

    instances: Instances
    images: layouts.Part  # their files in the order of the images' ids, which are their labels here

    def check_complete(self) -> None:
        """Raise UserError when image files are missing."""
        folder, files = self.images.folder, self.images.files
        if missing := [file.name for file in files if not os.path.isfile(folder / file.name)]:
            raise UserError(
                f"{folder}: {len(missing):,} of the {len(files):,} images of {self.instances.path.name} are missing: "
                f"{some(missing)}; --skip-unreadable leaves them out"
            )


def unused_test_part(source: Path, parts: Mapping[layouts.PartName, Part]) -> str:
    """Return a remark on the annotations of test images that are not evaluated on; nothing where there are none."""
    unused = [] if "test" in parts else _candidates(source, "test")
    return f"{unused[0]}: not used; --val {unused[0].relative_to(source)} evaluates on it" if unused else ""


def fingerprint(parts: dict[layouts.PartName, Part]) -> str:
    """Return 16 hex digits of the annotations and of the images' names and sizes, wherever they are."""
    digest = hashlib.sha256()
    for name, part in parts.items():
        instances = part.instances
        digest.update(f"{name} {instances.categories} {instances.annotations.digest()}\0".encode())
        digest.update(instances.heights.data)
        digest.update(instances.widths.data)
        for file in part.images.files:
            digest.update(os.fsencode(file.name) + f"\0{file.size}\0".encode())
    return digest.hexdigest()[:16]


def find_parts(source: Path, train: str | None = None, val: str | None = None) -> dict[layouts.PartName, Part]:
    """Find the annotations, ``SOURCE/annotations/instances_{train,val}*.json``, Roboflow's or the files named, below
    that folder, SOURCE or anywhere. The images of instances_train2017.json are in ``SOURCE/images/train2017``,
    ``SOURCE/train2017``, ``SOURCE/images``, SOURCE, next to that file or in ``SOURCE/data``: in the first of them that
    has some. Without test images, the training images are evaluated on.

    Raises:
        UserError: neither is there, one is not COCO's, images have no folder, the two have different categories.
    """
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder")
    paths: dict[layouts.PartName, Path | None] = {
        "train": _annotation_file(source, "train", train),
        "test": _annotation_file(source, "val", val),
    }
    parts = {name: _part(source, path) for name, path in paths.items() if path}
    if not parts:
        others = sorted(path.name for folder in (source / ANNOTATIONS, source) for path in folder.glob("*.json*"))
        inside = part_folders.subfolders(source)
        inner = [str(folder) for folder in inside if any(_candidates(folder, part) for part in _FOLDERS)]
        hint = f", such as {some(others)}" if others else f"; {some(inner)} has some" if inner else ""
        raise UserError(
            f"--source {source}: expected {ANNOTATIONS}/{_PREFIX}train*.json or {_PREFIX}val*.json; name "
            f"other files with --train and --val{hint}"
        )
    if len({part.instances.categories for part in parts.values()}) > 1:
        both = " and ".join(str(part.instances.path) for part in parts.values())
        different = _different(*(part.instances.categories for part in parts.values()))
        raise UserError(f"{both}: have different categories; expected the same ids and names in both: {different}")
    return parts


def _different(train: Sequence[Category], val: Sequence[Category]) -> str:
    """Return in words which categories two files do not share."""
    names, others = ({category.id: category.name for category in categories} for categories in (train, val))
    facts = [f"{i} is {names[i]!r} and {others[i]!r}" for i in names if i in others and names[i] != others[i]]
    for part, mine, theirs in (("train", names, others), ("val", others, names)):
        if only := [f"{i} {name!r}" for i, name in mine.items() if i not in theirs]:
            facts.append(f"only {part} has {some(only, LISTED)}")
    return some(facts, LISTED, "; ")


def _annotation_file(source: Path, option: str, named: str | None) -> Path | None:
    if named is None:
        candidates = _candidates(source, option)
        if len(candidates) > 1:
            names = ", ".join(path.name for path in candidates)
            raise UserError(f"{source / ANNOTATIONS}: has {names}; choose one of them with --{option}")
        return candidates[0] if candidates else None
    for path in (source / ANNOTATIONS / named, source / named, Path(named)):
        if path.is_file():
            return path
    raise UserError(
        f"--{option} {named}: no such file in {source / ANNOTATIONS} or {source}, nor in the current folder"
    )


def _candidates(source: Path, option: str) -> list[Path]:
    """Return the annotation files of a part; capital letters do not matter."""
    folder = source / ANNOTATIONS
    for ending in (".json", ".json.gz"):
        pattern = f"{_PREFIX}{option}*{ending}"
        if files := sorted(path for path in folder.glob("*") if fnmatchcase(path.name.lower(), pattern)):
            return files
    return [path for path in (source / name / ROBOFLOW for name in _FOLDERS[option]) if path.is_file()]


def _part(source: Path, path: Path) -> Part:
    instances = coco_json.read_instances(path)
    own = path.name.removesuffix(".gz").removesuffix(".json").removeprefix(_PREFIX)
    places = (source / "images" / own, source / own, source / "images", source, path.parent, source / "data")
    chosen = image_names.folder_of(places, instances.names)
    if chosen is None:
        tried = ", ".join(dict.fromkeys(map(str, places)))
        elsewhere = image_names.folders_with(source, instances.names[0])
        hint = f"; a file of that name is in {some(elsewhere)}: move the images" if elsewhere else ""
        raise UserError(f"{path}: none of its images, such as {instances.names[0][:200]}, is in one of {tried}{hint}")
    names = image_names.names_in(*chosen, instances.images)
    instances.remarks["files_found_by_name"] += sum(
        name != image.name for name, image in zip(names, instances.images, strict=True)
    )
    files = [
        layouts.found_file(chosen.folder, name, image.id) for name, image in zip(names, instances.images, strict=True)
    ]
    return Part(instances, layouts.Part(chosen.folder, files, ignored=0))
