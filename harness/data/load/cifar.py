"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): their pickles, as distributed or saved again, read without executing
anything; their binary versions; and the tars of both, read without unpacking.
"""

import io
import pickle
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from harness.data.cifar_files import CIFAR10, CIFAR100, CifarFiles, shards_in
from harness.data.load import parquet_images
from harness.data.load.arrays import ArrayDataset, WrongData
from harness.errors import shorten
from harness.phrases import some

Part = tuple[np.ndarray, np.ndarray]  # images (N, 3, 32, 32) uint8 and their classes (N,) int64
_PIECE = 1 << 20  # bytes
SHAPE = (32, 32, 3)
_PIXELS = 3 * 32 * 32
_DAMAGES = (
    pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError,
    MemoryError, RecursionError, ImportError,
)  # fmt: skip


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise WrongData(f"refused the encoding {shorten(encoding)} in a data file")
    return text.encode(encoding)


_array = np.zeros(1, np.uint8)
# What pickled arrays and byte strings need, and nothing else; NumPy 1 and 2 have other names for the same.
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array.__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _array[0].__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array.__reduce_ex__(5)[0] for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): bytes,
    ("collections", "OrderedDict"): OrderedDict,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise WrongData(f"refused to load {module}.{name} from a data file") from None


def read_arrays(folder: Path | None) -> ArrayDataset:
    """Read CIFAR-100's training images (50,000) and test images (10,000) with fine labels, see ``read_cifar``.

    Raises:
        WrongData: the folder holds something else.
    """
    return read_cifar(CIFAR100, folder)


def read_cifar(cifar: CifarFiles, folder: Path | None) -> ArrayDataset:
    """Read the training and the test images. ``folder``: as ``CifarFiles.find`` finds it, or a tar.

    Raises:
        WrongData: it holds something else.
    """
    assert folder is not None
    if folder.is_file():
        parts = _from_tar(cifar, folder)
    else:
        files = cifar.files_in(folder)
        if not files and (shards := shards_in(folder)):
            train, test = (parquet_images.read_split(paths, SHAPE, ("PNG",), cifar.title) for paths in shards)
            return ArrayDataset(*train, *test)
        files = files or cifar.expected_in(folder)
        parts = tuple([_from_file(cifar, path) for path in paths] for paths in files)
    return ArrayDataset(*(np.concatenate(arrays) for part in parts for arrays in zip(*part, strict=True)))


class _Pieces(io.RawIOBase):
    """A file in a tar, read in pieces: tarfile makes a copy of all that is asked for at once."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), _PIECE))
        buffer[: len(piece)] = piece
        return len(piece)


def _from_file(cifar: CifarFiles, path: Path) -> Part:
    try:
        with path.open("rb") as f:
            return _read(cifar, f, path.name, str(path))
    except OSError as e:
        raise WrongData(f"{path}: {e.strerror}") from None


def _from_tar(cifar: CifarFiles, path: Path) -> tuple[list[Part], ...]:
    """Read the files in a tar in the order in which they are there, as a compressed one is slow to go back in."""
    parts: dict[str, Part] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in cifar.names:
                    content = tar.extractfile(member)
                    assert content is not None
                    parts[name] = _read(cifar, io.BufferedReader(_Pieces(content)), name, f"{path}: {member.name}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        cause = "no tar, perhaps an error page: download it again" if isinstance(e, tarfile.ReadError) else e
        raise WrongData(f"{path}: a damaged or cut tar: {cause}") from None
    for split in cifar.forms.values():
        if all(name in parts for names in split for name in names):
            return tuple([parts[name] for name in names] for names in split)
    names = [name for part in next(iter(cifar.forms.values())) for name in part]
    found = some(sorted(parts)) or ("neither" if len(names) == 2 else "none")
    raise WrongData(f"{path}: expected the files {some(names, 9)} of {cifar.title}, found {found}")


def _read(cifar: CifarFiles, file: IO[bytes], name: str, place: str) -> Part:
    read: Callable[[CifarFiles, IO[bytes]], Part] = _binary if name.endswith(".bin") else _pickled
    try:
        images, labels = read(cifar, file)
        if len(images) != len(labels):
            raise WrongData(f"{len(images):,} images and {len(labels):,} labels")
        return images, labels
    except WrongData as e:
        raise WrongData(f"{place}: not a {cifar.title} file ({e})") from None
    except _DAMAGES as e:
        raise WrongData(f"{place}: not a {cifar.title} file ({type(e).__name__}: {e})") from None


def _binary(cifar: CifarFiles, file: IO[bytes]) -> Part:
    """Read rows of an image's class, after a coarse one in CIFAR-100, and its pixels."""
    content, size = np.frombuffer(file.read(), np.uint8), cifar.binary_row
    if not len(content) or len(content) % size:
        raise WrongData(f"{len(content):,} bytes are no whole number of images of {size:,}: cut, or not {cifar.title}")
    rows = content.reshape(-1, size)
    pixels = np.ascontiguousarray(rows[:, -_PIXELS:]).reshape(-1, 3, 32, 32)
    return pixels, rows[:, -_PIXELS - 1].astype(np.int64)


def _pickled(cifar: CifarFiles, file: IO[bytes]) -> Part:
    content = _ArraysOnly(file, encoding="bytes").load()
    if not isinstance(content, Mapping):
        raise WrongData(f"expected data and {cifar.labels} by name, found {shorten(content)}")
    return _images(_value(cifar, content, "data")), _labels(cifar, _value(cifar, content, cifar.labels))


def _value(cifar: CifarFiles, content: Mapping[Any, Any], name: str) -> Any:
    for key in (name.encode(), name):
        if key in content:
            return content[key]
    keys = sorted(key.decode(errors="replace") if isinstance(key, bytes) else str(key) for key in content)
    of_other = CIFAR10 if cifar is CIFAR100 else CIFAR100
    other = f": these are {of_other.title}'s" if {of_other.labels.encode(), of_other.labels} & set(content) else ""
    raise WrongData(f"no {name}, found {some(keys, 6)}{other}")


def _images(value: Any) -> np.ndarray:
    """Return images by channel, whether they are rows, by channel or by pixel."""
    images = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, np.uint8)
    if images.dtype != np.uint8 or images.shape[1:] not in ((3072,), (3, 32, 32), (32, 32, 3)):
        raise WrongData(f"data is {images.dtype} of shape {images.shape}, expected uint8 of shape (N, 3072)")
    if images.shape[1:] == (32, 32, 3):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images.reshape(-1, 3, 32, 32)


def _labels(cifar: CifarFiles, value: Any) -> np.ndarray:
    labels = np.asarray(value)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise WrongData(f"{cifar.labels} is {labels.dtype} of shape {labels.shape}, expected a class for each image")
    return labels.astype(np.int64)
