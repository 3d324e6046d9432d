"""The files that STL-10 is distributed in: its binary version; imports no torch."""

from pathlib import Path

from harness.phrases import some

FOLDER = "stl10_binary"
PARTS = {"train": ("train_X.bin", "train_y.bin"), "test": ("test_X.bin", "test_y.bin")}  # images and labels
NAMES = tuple(name for names in PARTS.values() for name in names)
_TARS = (f"{FOLDER}.tar.gz", f"{FOLDER}.tgz", f"{FOLDER}.tar")


def find_stl10(root: Path) -> Path | str:
    """Return the folder or the tar with STL-10, in the data root, or the root itself; else what is there instead."""
    for place in (root / FOLDER, root):
        if all((place / name).is_file() for name in NAMES):
            return place
    for name in _TARS:
        if (root / name).is_file():
            return root / name
    place = root / FOLDER if (root / FOLDER).is_dir() else root
    there = sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("."))
    return f"found {some(there) or 'nothing'} in {place}; expected {FOLDER} ({', '.join(NAMES)}) or {_TARS[0]}"
