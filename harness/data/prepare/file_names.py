"""Names of files and folders in a dataset: those of images, and those that programs leave behind."""

import os
from pathlib import PurePosixPath

# As torchvision's ImageFolder takes them for images.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_LEFT_BY_SYSTEMS = ("__macosx", "@eadir", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini")


def is_hidden(name: str) -> bool:
    """Return whether a name is that of a file or folder which programs leave behind: no class, and no image."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def is_image(name: str) -> bool:
    """Return whether a name is that of an image file."""
    return name.lower().endswith(EXTENSIONS) and not is_hidden(name)


def is_within_hidden(path: str) -> bool:
    """Return whether a path, such as that of a tar's member, is hidden or in a hidden folder."""
    return any(is_hidden(part) for part in PurePosixPath(path).parts if part != os.pardir)


def leads_back(folder: str) -> bool:
    """Return whether a folder is a link to one that it is in, itself or through other links: there is no end of it."""
    if not os.path.islink(folder):
        return False
    target, place = os.path.realpath(folder), os.path.dirname(os.path.abspath(folder))
    while os.path.commonpath([target, os.path.realpath(place)]) != target:
        if place == os.path.dirname(place):
            return False
        place = os.path.dirname(place)
    return True
