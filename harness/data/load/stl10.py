"""STL-10 (Coates, Ng and Lee 2011): its labelled images, from the binary version, unpacked or in its tar."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from harness.data import stl10_files
from harness.data.load.arrays import ArrayDataset, Tell, WrongData
from harness.phrases import some

SHAPE = (3, 96, 96)
_CLASSES = 10


def sources(place: Path) -> list[Path]:
    """Return the files that are read, in what ``stl10_files.find_stl10`` has found."""
    return [place] if place.is_file() else [place / name for name in stl10_files.NAMES]


def read_arrays(folder: Path, tell: Tell) -> ArrayDataset:
    """Read the training images (5,000) and the test images (8,000). ``folder``: as ``stl10_files.find_stl10`` finds it.

    It takes seconds, so that there is nothing to tell.

    Raises:
        WrongData: it holds something else.
    """
    contents = _from_tar(folder) if folder.is_file() else _from_folder(folder)
    arrays = []
    for images, labels in stl10_files.PARTS.values():
        arrays += [_images(contents[images], f"{folder}: {images}"), _labels(contents[labels], f"{folder}: {labels}")]
        if len(arrays[-1]) != len(arrays[-2]):
            raise WrongData(f"{folder}: {len(arrays[-2]):,} images in {images}, {len(arrays[-1]):,} labels in {labels}")
    return ArrayDataset(*arrays)


def _from_folder(folder: Path) -> dict[str, np.ndarray]:
    try:
        return {name: np.fromfile(folder / name, np.uint8) for name in stl10_files.NAMES}
    except OSError as e:
        raise WrongData(f"{e.filename or folder}: {e.strerror}") from None


def _from_tar(path: Path) -> dict[str, np.ndarray]:
    contents: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in stl10_files.NAMES:
                    file = tar.extractfile(member)
                    assert file is not None
                    contents[name] = np.frombuffer(file.read(), np.uint8)
                if len(contents) == len(stl10_files.NAMES):  # what follows may be the unlabelled images: 2.7 GB
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        raise WrongData(f"{path}: a damaged or cut tar: {e}") from None
    if missing := [name for name in stl10_files.NAMES if name not in contents]:
        raise WrongData(f"{path}: lacks {some(missing)} of STL-10")
    return contents


def _images(content: np.ndarray, place: str) -> np.ndarray:
    """Return images by channel; in the file, each channel goes column by column."""
    size = int(np.prod(SHAPE))
    if not len(content) or len(content) % size:
        raise WrongData(f"{place}: {len(content):,} bytes are no whole number of images of {size:,}: not STL-10")
    return np.ascontiguousarray(content.reshape(-1, *SHAPE).transpose(0, 1, 3, 2))


def _labels(content: np.ndarray, place: str) -> np.ndarray:
    """Return classes from 0; in the file they are from 1."""
    wrong = content[(content < 1) | (content > _CLASSES)]
    if len(wrong):
        raise WrongData(f"{place}: label {wrong[0]}, expected 1 to {_CLASSES}: not STL-10")
    return content.astype(np.int64) - 1
