"""CIFAR-100 (Krizhevsky 2009): its pickles, as distributed or saved again, read without executing anything; its binary
version; and the tars of both, read without unpacking.
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

from harness.data import cifar_files
from harness.data.load import cifar_parquet
from harness.data.load.arrays import ArrayDataset, WrongData
from harness.errors import shorten
from harness.phrases import some

Part = tuple[np.ndarray, np.ndarray]  # images (N, 3, 32, 32) uint8 and their classes (N,) int64
_PIECE = 1 << 20  # bytes
_ROW = 2 + 3 * 32 * 32  # bytes of the binary version: coarse class, fine class, pixels
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
    """Read the training images (50,000) and the test images (10,000) with fine labels. ``folder``: as
    ``cifar_files.find_cifar100`` finds it, or a tar.

    Raises:
        WrongData: it holds something else.
    """
    assert folder is not None
    if folder.is_file():
        train, test = _from_tar(folder)
    else:
        files = cifar_files.files_in(folder)
        if not files and (shards := cifar_files.shards_in(folder)):
            train, test = map(cifar_parquet.read_split, shards)
        else:
            train, test = map(_from_file, files or (folder / "train", folder / "test"))
    return ArrayDataset(*train, *test)


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


def _from_file(path: Path) -> Part:
    try:
        with path.open("rb") as f:
            return _read(f, path.name, str(path))
    except OSError as e:
        raise WrongData(f"{path}: {e.strerror}") from None


def _from_tar(path: Path) -> tuple[Part, Part]:
    """Read the files in a tar in the order in which they are there, as a compressed one is slow to go back in."""
    parts: dict[str, Part] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if member.isfile() and any(name in names for names in cifar_files.FORMS.values()):
                    content = tar.extractfile(member)
                    assert content is not None
                    parts[name] = _read(io.BufferedReader(_Pieces(content)), name, f"{path}: {member.name}")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        cause = "no tar, perhaps an error page: download it again" if isinstance(e, tarfile.ReadError) else e
        raise WrongData(f"{path}: a damaged or cut tar: {cause}") from None
    for names in cifar_files.FORMS.values():
        if all(name in parts for name in names):
            return parts[names[0]], parts[names[1]]
    raise WrongData(f"{path}: expected the files train and test of CIFAR-100, found {some(sorted(parts)) or 'neither'}")


def _read(file: IO[bytes], name: str, place: str) -> Part:
    read: Callable[[IO[bytes]], Part] = _binary if name.endswith(".bin") else _pickled
    try:
        return read(file)
    except WrongData as e:
        raise WrongData(f"{place}: not a CIFAR-100 file ({e})") from None
    except _DAMAGES as e:
        raise WrongData(f"{place}: not a CIFAR-100 file ({type(e).__name__}: {e})") from None


def _binary(file: IO[bytes]) -> Part:
    content = np.frombuffer(file.read(), np.uint8)
    if not len(content) or len(content) % _ROW:
        raise WrongData(f"{len(content):,} bytes are no whole number of images of {_ROW:,}: cut, or not CIFAR-100")
    rows = content.reshape(-1, _ROW)
    return np.ascontiguousarray(rows[:, 2:]).reshape(-1, 3, 32, 32), rows[:, 1].astype(np.int64)


def _pickled(file: IO[bytes]) -> Part:
    content = _ArraysOnly(file, encoding="bytes").load()
    if not isinstance(content, Mapping):
        raise WrongData(f"expected data and fine_labels by name, found {shorten(content)}")
    return _images(_value(content, "data")), _labels(_value(content, "fine_labels"))


def _value(content: Mapping[Any, Any], name: str) -> Any:
    for key in (name.encode(), name):
        if key in content:
            return content[key]
    keys = sorted(key.decode(errors="replace") if isinstance(key, bytes) else str(key) for key in content)
    other = ": these are CIFAR-10's" if {b"labels", "labels"} & set(content) else ""
    raise WrongData(f"no {name}, found {some(keys, 6)}{other}")


def _images(value: Any) -> np.ndarray:
    """Return images by channel, whether they are rows, by channel or by pixel."""
    images = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, np.uint8)
    if images.dtype != np.uint8 or images.shape[1:] not in ((3072,), (3, 32, 32), (32, 32, 3)):
        raise WrongData(f"data is {images.dtype} of shape {images.shape}, expected uint8 of shape (N, 3072)")
    if images.shape[1:] == (32, 32, 3):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images.reshape(-1, 3, 32, 32)


def _labels(value: Any) -> np.ndarray:
    labels = np.asarray(value)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise WrongData(f"fine_labels is {labels.dtype} of shape {labels.shape}, expected a class for each image")
    return labels.astype(np.int64)
