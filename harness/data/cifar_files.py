"""The files that CIFAR-100 is distributed in, wherever people keep them; imports no torch."""

from pathlib import Path

from harness.data.prepare.shard_files import shard_files
from harness.phrases import some

# Training and test images, for each of the forms in which it is distributed.
FORMS = {"cifar-100-python": ("train", "test"), "cifar-100-binary": ("train.bin", "test.bin")}
_TARS = tuple(f"{name}{ending}" for name in FORMS for ending in (".tar.gz", ".tgz", ".tar"))
_HUB = "cifar100"  # the folder of the Hugging Face Hub's Parquet shards
_CIFAR10 = ("data_batch_1", "data_batch_1.bin")
_EXPECTED = (
    "cifar-100-python (the files train and test), cifar-100-binary (train.bin and test.bin), their .tar.gz or cifar100 "
    "(the Hub's Parquet files)"
)


def find_cifar100(root: Path) -> Path | str:
    """Return the folder or the tar with CIFAR-100, in the data root, or the root itself; else what is there instead."""
    places = [root / name for name in FORMS]
    for place in (*places, root):
        if files_in(place):
            return place
    for name in _TARS:
        if (root / name).is_file():
            return root / name
    for place in (root / _HUB, root):
        if (place == root / _HUB or any(root.glob("train*.parquet"))) and shards_in(place):
            return place
    return f"{_instead(root, places)}; expected {_EXPECTED}"


def files_in(folder: Path) -> tuple[Path, Path] | None:
    """Return the files of training and of test images in a folder; None if it lacks one."""
    for train, test in FORMS.values():
        if (folder / train).is_file() and (folder / test).is_file():
            return folder / train, folder / test
    return None


def shards_in(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """Return the Parquet shards of training and of test images below a folder; None if it lacks some.

    Raises:
        UserError: there are shards of several datasets.
    """
    splits = shard_files(folder) if folder.is_dir() else {}
    if not {"train", "test"} <= set(splits) or splits["train"][0].suffix != ".parquet":
        return None
    return splits["train"], splits["test"]


def _instead(root: Path, places: list[Path]) -> str:
    for place in places:
        if place.is_dir():
            if _has_cifar100(place):
                return f"{place} has it"
            lacking = [name for name in FORMS[place.name] if not (place / name).is_file()]
            return f"{place} lacks {some(lacking)}, unpack it again"
    for place in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        if any((place / name).is_file() for name in _CIFAR10):
            return f"{place} is CIFAR-10, another dataset"
    if elsewhere := next(filter(_has_cifar100, (root.parent, *sorted(filter(Path.is_dir, root.iterdir())))), None):
        return f"{elsewhere} has it"
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    return f"found {some(names)}" if names else "found nothing there"


def _has_cifar100(folder: Path) -> bool:
    try:
        return any(files_in(folder / name) for name in FORMS) or any((folder / name).is_file() for name in _TARS)
    except OSError:  # it may be private
        return False
