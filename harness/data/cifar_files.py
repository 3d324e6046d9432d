"""The files that CIFAR-10 and CIFAR-100 are distributed in, wherever people keep them; imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from harness.data.prepare.shard_files import shard_files
from harness.phrases import some


@dataclass(frozen=True)
class CifarFiles:
    """One of the two datasets, in the forms in which it is distributed."""

    title: str
    forms: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # folder -> files of training and of test images
    archives: tuple[str, ...]  # names of the tars, without ending
    hub: str  # the folder of the Hugging Face Hub's Parquet shards
    labels: str  # the key of the classes in the pickles
    binary_row: int  # bytes of an image in the binary version
    expected: str

    @property
    def tars(self) -> tuple[str, ...]:
        return tuple(f"{name}{ending}" for name in self.archives for ending in (".tar.gz", ".tgz", ".tar"))

    @property
    def names(self) -> frozenset[str]:
        """The names of all files that hold images."""
        return frozenset(name for parts in self.forms.values() for part in parts for name in part)

    def files_in(self, folder: Path) -> tuple[list[Path], list[Path]] | None:
        """Return the files of training and of test images in a folder; None if it lacks some."""
        for parts in self.forms.values():
            train, test = ([folder / name for name in part] for part in parts)
            if all(path.is_file() for path in (*train, *test)):
                return train, test
        return None

    def expected_in(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the files of the first form, whether or not they are there."""
        train, test = next(iter(self.forms.values()))
        return [folder / name for name in train], [folder / name for name in test]

    def find(self, root: Path) -> Path | str:
        """Return the folder or the tar with it, in the data root, or the root itself; else what is there instead."""
        places = [root / name for name in self.forms]
        for place in (*places, root):
            if self.files_in(place):
                return place
        for name in self.tars:
            if (root / name).is_file():
                return root / name
        for place in (root / self.hub, root):
            if (place == root / self.hub or any(root.glob("train*.parquet"))) and shards_in(place):
                return place
        return f"{self._instead(root, places)}; expected {self.expected}"

    def _instead(self, root: Path, places: list[Path]) -> str:
        for place in places:
            if place.is_dir():
                if self._is_in(place):
                    return f"{place} has it"
                wanted = [name for part in self.forms[place.name] for name in part]
                lacking = [name for name in wanted if not (place / name).is_file()]
                return f"{place} lacks {some(lacking)}, unpack it again"
        other = CIFAR10 if self is CIFAR100 else CIFAR100
        for place in (root, *(root / name for name in other.forms)):
            if other.files_in(place) or any((place / name).is_file() for name in _TELLING if other is CIFAR10):
                return f"{place} is {other.title}, another dataset"
        if elsewhere := next(filter(self._is_in, (root.parent, *sorted(filter(Path.is_dir, root.iterdir())))), None):
            return f"{elsewhere} has it"
        names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
        return f"found {some(names)}" if names else "found nothing there"

    def _is_in(self, folder: Path) -> bool:
        try:
            in_folder = any(self.files_in(folder / name) for name in self.forms)
            return in_folder or any((folder / name).is_file() for name in self.tars)
        except OSError:  # it may be private
            return False


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TELLING = ("data_batch_1", "data_batch_1.bin")  # of CIFAR-10
CIFAR10 = CifarFiles(
    "CIFAR-10",
    {
        "cifar-10-batches-py": (_BATCHES, ("test_batch",)),
        "cifar-10-batches-bin": (tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",)),
    },
    ("cifar-10-python", "cifar-10-binary"),
    "cifar10",
    "labels",
    1 + 3 * 32 * 32,
    "cifar-10-batches-py (the files data_batch_1 to data_batch_5 and test_batch), cifar-10-batches-bin (the same with "
    ".bin), cifar-10-python.tar.gz, cifar-10-binary.tar.gz or cifar10 (the Hub's Parquet files)",
)
CIFAR100 = CifarFiles(
    "CIFAR-100",
    {
        "cifar-100-python": (("train",), ("test",)),
        "cifar-100-binary": (("train.bin",), ("test.bin",)),
    },
    ("cifar-100-python", "cifar-100-binary"),
    "cifar100",
    "fine_labels",
    2 + 3 * 32 * 32,
    "cifar-100-python (the files train and test), cifar-100-binary (train.bin and test.bin), their .tar.gz or cifar100 "
    "(the Hub's Parquet files)",
)


def find_cifar10(root: Path) -> Path | str:
    """Return the place of CIFAR-10, see ``CifarFiles.find``."""
    return CIFAR10.find(root)


def find_cifar100(root: Path) -> Path | str:
    """Return the place of CIFAR-100, see ``CifarFiles.find``."""
    return CIFAR100.find(root)


def shards_in(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """Return the Parquet shards of training and of test images below a folder; None if it lacks some.

    Raises:
        UserError: there are shards of several datasets.
    """
    splits = shard_files(folder) if folder.is_dir() else {}
    held_out = next((name for name in ("test", "validation", "valid", "val") if name in splits), None)
    if "train" not in splits or held_out is None or splits["train"][0].suffix != ".parquet":
        return None
    return splits["train"], splits[held_out]
