"""Tiny-ImageNet's table of classes, ``val/val_annotations.txt``, for images that are not in a folder per class."""

from pathlib import Path

from harness.data.prepare.file_names import is_hidden
from harness.errors import UserError, shorten
from harness.phrases import some

_IMAGES = "images"


def find_table(folder: Path) -> Path | None:
    """Return the table of a part of a dataset; None if it has none, or has folders per class all the same."""
    table = folder / f"{folder.name.lower()}_annotations.txt"
    try:
        others = (entry for entry in folder.iterdir() if entry.is_dir() and entry.name != _IMAGES)
        return table if table.is_file() and all(is_hidden(entry.name) for entry in others) else None
    except OSError:  # reading the folder will say so
        return None


def image_folder(table: Path) -> Path:
    """Return the folder of the images that a table is of: ``images`` next to it, or the table's own."""
    images = table.parent / _IMAGES
    return images if images.is_dir() else table.parent


def read_classes(table: Path) -> dict[str, str]:
    """Return file name -> class. A line has a file's name and its class, then perhaps a box, separated by tabs.

    Raises:
        UserError: a line is of another form, an image is there with two classes, or has no file.
    """
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{table}: {getattr(e, 'strerror', None) or 'expected text in UTF-8'}") from None
    classes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if not fields:
            continue
        if len(fields) < 2 or not all(fields[:2]):
            raise UserError(f"{table}:{number}: expected a file's name, a tab and its class; found {shorten(line)}")
        name, label = fields[:2]
        if classes.setdefault(name, label) != label:
            raise UserError(f"{table}:{number}: {name} is of class {label}, and of {classes[name]} before")
    images = image_folder(table)
    if missing := [name for name in classes if not (images / name).is_file()]:
        raise UserError(
            f"{table}: {len(missing):,} of its {len(classes):,} images are not in {images}: {some(missing)}"
        )
    return classes
