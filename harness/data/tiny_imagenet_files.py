"""The files of Tiny-ImageNet, as it is distributed or as the Hugging Face Hub has it; imports no torch."""

from pathlib import Path

from harness.data.cifar_files import shards_in
from harness.data.prepare import tiny_imagenet
from harness.data.prepare.file_names import is_hidden, is_image
from harness.errors import UserError
from harness.phrases import some

FOLDER = "tiny-imagenet-200"
_HUB = "tiny-imagenet"  # the folder of the Hub's Parquet shards
_HELD_OUT = "val"
LabelledFiles = list[tuple[Path, int]]


def find_tiny_imagenet(root: Path) -> Path | str:
    """Return the folder with Tiny-ImageNet, in the data root, or the root itself; else what is there instead."""
    for place in (root / FOLDER, root):
        if all((place / part).is_dir() for part in ("train", _HELD_OUT)):
            return place
    for place in (root / _HUB, root):
        if (place == root / _HUB or any(root.glob("train*.parquet"))) and shards_in(place):
            return place
    there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    zipped = next((f"; unpack {name}" for name in there if name == f"{FOLDER}.zip"), "")
    return (
        f"found {some(there) or 'nothing'} in {root}{zipped}; expected {FOLDER} (with train and {_HELD_OUT}) or {_HUB} "
        "(the Hub's Parquet files)"
    )


def labelled_files(folder: Path) -> tuple[LabelledFiles, LabelledFiles]:
    """Return the image files of training and of validation with their classes: the ranks of the classes' names.

    Raises:
        UserError: a part has no images, or validation has classes that training lacks.
    """
    train = _by_class(folder / "train")
    ranks = {name: rank for rank, name in enumerate(sorted(train))}
    table = tiny_imagenet.find_table(folder / _HELD_OUT)
    if table is None:
        val = _by_class(folder / _HELD_OUT)
    else:
        val = {}
        for name, label in sorted(tiny_imagenet.read_classes(table).items()):
            val.setdefault(label, []).append(tiny_imagenet.image_folder(table) / name)
    if others := sorted(val.keys() - ranks.keys()):
        raise UserError(f"{folder / _HELD_OUT}: class {some(others)} is not in {folder / 'train'}")
    for part, images in (("train", train), (_HELD_OUT, val)):
        if not any(images.values()):
            raise UserError(f"{folder / part}: no images")
    train_files, val_files = (
        [(path, ranks[label]) for label in sorted(images) for path in images[label]] for images in (train, val)
    )
    return train_files, val_files


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class's folder, or of the folder ``images`` in it, by name."""
    images: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not is_hidden(entry.name):
            place = entry / "images" if (entry / "images").is_dir() else entry
            images[entry.name] = sorted(path for path in place.iterdir() if is_image(path.name))
    return {label: paths for label, paths in images.items() if paths}
