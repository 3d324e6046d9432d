"""Published md5 sums of the files of datasets, which tell whether data are the official ones."""

import hashlib
from pathlib import Path

from harness.phrases import some

# torchvision's: torchvision/datasets/cifar.py and stl10.py of pytorch/vision; that of cifar-10-binary.tar.gz is on its
# authors' page, cs.toronto.edu/~kriz/cifar.html.
MD5 = {
    "cifar10": {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "stl10": {
        "stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb",
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
}


def note(dataset: str, place: Path) -> str:
    """Return what the md5 sums tell of the files in a folder, or of a tar; nothing where none is published."""
    sums = MD5.get(dataset, {})
    paths = [place] if place.is_file() else [place / name for name in sums if (place / name).is_file()]
    known = [path for path in paths if path.name in sums]
    if not known:
        return "; whether these are the official data is not known: no md5 of such files is published"
    other = [path.name for path in known if _md5(path) != sums[path.name]]
    if other:
        return f"; not the official data, by the published md5 of {some(other)}"
    return "; the official data, by their published md5"


def _md5(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
