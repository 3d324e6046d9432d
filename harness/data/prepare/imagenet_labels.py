"""The labels of ImageNet's validation images, from its development kit or Kaggle's table."""

import csv
import io
import tarfile
from pathlib import Path

from harness.errors import UserError

DEVKIT, SOLUTION = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"
_SYNSETS, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"  # in the development kit
_DEVKIT_FILE = 1 << 26  # bytes: far more than any of its files has


def validation_labels(source: Path) -> dict[str, str]:
    """Return image -> class of the official validation folder.

    Raises:
        UserError: neither the development kit nor Kaggle's table is there, or it is damaged.
    """
    source = source.resolve()
    for place in (source, *source.parents[:3]):
        try:
            if (devkit := place / DEVKIT / "data").is_dir():
                return _from_devkit(devkit)
            if (packed := place / f"{DEVKIT}.tar.gz").is_file():
                return _from_packed_devkit(packed)
            if (table := place / SOLUTION).is_file():
                return _from_table(table)
        except Exception as e:  # a damaged file makes readers raise anything
            raise UserError(f"{place}: damaged {DEVKIT} or {SOLUTION}: {type(e).__name__}: {e}") from None
    raise UserError(
        f"{source}: a flat validation folder needs its labels: put {DEVKIT}.tar.gz (or Kaggle's {SOLUTION}) "
        "into it or next to it"
    )


def _from_devkit(folder: Path) -> dict[str, str]:
    return _devkit_labels((folder / _SYNSETS).read_bytes(), (folder / _TRUTH).read_bytes())


def _from_packed_devkit(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        files = [tar.extractfile(f"{DEVKIT}/data/{name}") for name in (_SYNSETS, _TRUTH)]
        synsets, truth = (file.read(_DEVKIT_FILE) if file else b"" for file in files)
    return _devkit_labels(synsets, truth)


def _devkit_labels(meta: bytes, ground_truth: bytes) -> dict[str, str]:
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    classes = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    truth = ground_truth.decode().split()
    return {f"ILSVRC2012_val_{i:08}": classes[int(number)] for i, number in enumerate(truth, 1)}


def _from_table(file: Path) -> dict[str, str]:
    with file.open(newline="") as f:
        rows = csv.DictReader(f)
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
