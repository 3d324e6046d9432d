"""Checkpoints on disk: their content, with tensors that are read when they are asked for. Nothing in them is run."""

import io
import json
import math
import pickletools
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from harness.models.other_files import describe_archive, describe_other, describe_tar
from harness.models.pickled_data import Global, Placeholder, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in files that torch wrote before version 1.6
_MOST_HEADER = 100_000_000  # bytes, safetensors' own limit
_MOST_DIMS = 64
_FLOATS = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16}
_INTS = {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8}
_OTHERS = {"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128}
_QUANTISED = {"QInt8": torch.int8, "QUInt8": torch.uint8, "QInt32": torch.int32, "QUInt4x2": torch.uint8}
_STORAGES = {f"{name}Storage": dtype for name, dtype in {**_FLOATS, **_INTS, **_OTHERS, **_QUANTISED}.items()}
_STORAGES["UntypedStorage"] = torch.uint8
_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class WrongFile(Exception):
    """A file that is no checkpoint, or a damaged one; the text continues a sentence that begins with its name."""


@dataclass(frozen=True)
class Storage:
    """The values that tensors of a file share."""

    key: str
    dtype: torch.dtype
    count: int  # of the values
    start: int = 0  # the first value's position in what the file stores under the key


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a file: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize


@dataclass
class Checkpoint:
    """The content of a file."""

    path: Path
    tree: Any = None  # plain data, tensors and placeholders
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)  # of storages: first byte and number of bytes

    def read(self, file: BinaryIO, tensor: FileTensor) -> Tensor:
        """Return a tensor's values.

        Raises:
            WrongFile: the file does not hold them.
        """
        dtype = tensor.storage.dtype
        if not math.prod(tensor.shape):
            return torch.empty(tensor.shape, dtype=dtype)
        first, length = self.positions.get(tensor.storage.key, (0, 0))
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        start = (tensor.storage.start + tensor.offset) * dtype.itemsize
        if start + span * dtype.itemsize > length:
            raise WrongFile("is damaged: a tensor lies outside of what is stored")
        content = bytearray(span * dtype.itemsize)
        file.seek(first + start)
        if file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise WrongFile("is cut short")
        return torch.frombuffer(content, dtype=dtype).as_strided(tensor.shape, tensor.stride)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a file's content without its tensors: safetensors, or what torch.save has written in any version.

    The format is told by the content.

    Raises:
        WrongFile: it is no checkpoint, or damaged.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        checkpoint = Checkpoint(path)
        try:
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= max(size, _MOST_HEADER):
                _read_safetensors(checkpoint, file, size)
            elif start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                _read_zip(checkpoint, file)
            elif start[:1] == b"\x80" and _is_legacy(start):
                _read_legacy(checkpoint, file, size)
            elif start[257:262] == b"ustar":
                _read_tar(checkpoint, file, size)
            else:
                raise WrongFile(describe_other(start, path, size))
        except (WrongFile, OSError):
            raise
        except Exception:  # damaged content leads to any exception there is; nothing of it was run
            raise WrongFile("is damaged or cut short: its list of tensors cannot be read") from None
    return checkpoint


def _read_safetensors(checkpoint: Checkpoint, file: BinaryIO, size: int) -> None:
    length = int.from_bytes(file.read(8), "little")
    if 8 + length > size:
        raise WrongFile(f"is a safetensors file that is cut short: {size:,} bytes")
    try:
        header: dict[str, Any] = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise WrongFile("is a damaged safetensors file: its header cannot be read") from None
    tree: dict[str, Any] = {}
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise WrongFile(f"is a safetensors file that is cut short: {size:,} of {end:,} bytes")
    for name, entry in header.items():
        (first, last), shape = entry["data_offsets"], tuple(entry["shape"])
        dtype = _SAFETENSORS.get(entry["dtype"])
        if dtype is None:
            tree[name] = Placeholder(f"tensors of type {entry['dtype']}")
            continue
        count = math.prod(shape[:_MOST_DIMS])
        if len(shape) > _MOST_DIMS or not _are_counts((first, last, *shape)) or count * dtype.itemsize != last - first:
            raise WrongFile("is a damaged safetensors file: a tensor's size differs from its shape")
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        tree[name] = _tensor(Storage(name, dtype, count), 0, shape, strides)
        checkpoint.positions[name] = (8 + length + first, last - first)
    checkpoint.tree = tree


def _read_zip(checkpoint: Checkpoint, file: BinaryIO) -> None:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        size = checkpoint.path.stat().st_size
        raise WrongFile(f"is cut short or damaged: {size:,} bytes of an archive whose end is missing") from None
    entries = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    other = describe_archive(list(entries))
    if other or len(roots) != 1:
        raise WrongFile(other or f"is a zip archive that torch.save has not written: it holds {len(entries)} files")
    root = roots[0]
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise WrongFile("is an archive of torch.save that was packed again, with compression: expected torch's own")
    if (order := entries.get(f"{root}byteorder")) and _content(file, order).strip() != b"little":
        raise WrongFile("was written on a machine with another byte order")
    checkpoint.tree = read_pickle(io.BytesIO(_content(file, entries[f"{root}data.pkl"])), BUILDS, _storage)
    for name, info in entries.items():
        if name.startswith(f"{root}data/"):
            checkpoint.positions[name.removeprefix(f"{root}data/")] = (_start(file, info), info.file_size)


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the position of an entry's content, which its local header precedes."""
    file.seek(info.header_offset + 26)
    lengths = file.read(4)
    return info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _content(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    file.seek(_start(file, info))
    return file.read(info.file_size)


def _is_legacy(start: bytes) -> bool:
    try:
        number = next(arg for opcode, arg, _ in pickletools.genops(start) if opcode.name == "LONG1")
    except (ValueError, StopIteration):
        return False
    return bool(number == _MAGIC)


def _read_legacy(checkpoint: Checkpoint, file: BinaryIO, size: int) -> None:
    """Read pickles of a magic number, a version, the machine, the content and the storages' keys; the storages follow,
    each after its number of values.
    """
    storages: dict[str, Storage] = {}
    for _ in range(3):
        read_pickle(file, {}, _storage)

    def storage(identity: Any) -> Any:
        found = _storage(identity)
        if isinstance(found, Storage):
            storages.setdefault(found.key, found)
        return found

    checkpoint.tree = read_pickle(file, BUILDS, storage)
    for key in read_pickle(file, {}, _storage):
        count = int.from_bytes(file.read(8), "little", signed=True)
        position, length = file.tell(), count * storages[key].dtype.itemsize
        if count < 0 or position + length > size:
            raise WrongFile(f"is cut short or damaged: {size:,} of at least {position + length:,} bytes")
        checkpoint.positions[key] = (position, length)
        file.seek(position + length)


def _read_tar(checkpoint: Checkpoint, file: BinaryIO, size: int) -> None:
    """Read the archives of torch's first versions: storages, tensors in them, and the content that names these."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            starts = {info.name: info.offset_data for info in archive.getmembers() if info.isfile()}
    except tarfile.TarError:
        raise WrongFile("is a damaged tar archive") from None
    if not {"storages", "tensors", "pickle"} <= set(starts):
        raise WrongFile("is cut short" if "storages" in starts else describe_tar(list(starts)))
    objects: dict[Any, Any] = {}
    file.seek(starts["storages"])
    for _ in range(read_pickle(file, {}, _storage)):
        key, location, kind = read_pickle(file, {}, _storage)
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage = _storage(("storage", kind, str(key), location, count))
        position, length = file.tell(), count * storage.dtype.itemsize
        if position + length > size:
            raise WrongFile("is cut short or damaged")
        objects[key], checkpoint.positions[str(key)] = storage, (position, length)
        file.seek(position + length)
    for key, root, start, count in read_pickle(file, {}, _storage):
        whole = objects[root]
        if not _are_counts((start, count)) or start + count > whole.count:
            raise ValueError("a view outside of its storage")
        objects[key] = Storage(whole.key, whole.dtype, count, start)
    file.seek(starts["tensors"])
    for _ in range(read_pickle(file, {}, _storage)):
        key, storage_key, _kind = read_pickle(file, {}, _storage)
        (dims,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= dims <= _MOST_DIMS:
            raise ValueError("a tensor without a shape")
        numbers = struct.unpack(f"<{2 * dims + 1}q", file.read(16 * dims + 8))
        objects[key] = _tensor(objects[storage_key], numbers[-1], numbers[:dims], numbers[dims:-1])
    file.seek(starts["pickle"])
    checkpoint.tree = read_pickle(file, BUILDS, lambda key: key[0] if isinstance(key, tuple) else objects[int(key)])


def _storage(identity: Any) -> Any:
    """Return what a persistent id of torch stands for: a storage, or a class that was saved with its source."""
    if not isinstance(identity, tuple):
        raise TypeError("a persistent id that torch does not write")
    kind, *parts = identity
    if kind == "module":
        return parts[0]
    storage_type, key, _location, count, *view = parts
    dtype = _STORAGES.get(storage_type.name.rpartition(".")[2]) if isinstance(storage_type, Global) else None
    if kind != "storage" or dtype is None:
        return Placeholder(f"tensors of {getattr(storage_type, 'name', 'no type')}")
    if not _are_counts((count,)) or not isinstance(key, str):
        raise TypeError("a storage without size or key")
    if view and view[0] is not None:
        _, start, length = view[0]
        if not _are_counts((start, length)) or start + length > count:
            raise ValueError("a view outside of its storage")
        return Storage(key, dtype, length, start)
    return Storage(key, dtype, count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    """Return a tensor that lies in its storage, each value of which it has at most once."""
    if not isinstance(storage, Storage):
        return storage if isinstance(storage, Placeholder) else Placeholder("tensors without a storage")
    if len(shape) != len(stride) or len(shape) > _MOST_DIMS or not _are_counts((offset, *shape, *stride)):
        raise ValueError("a tensor without a shape")
    if not _are_counts((math.prod(max(n, 1) for n in shape),)):
        raise ValueError("a shape without an end")
    if math.prod(shape) > storage.count:
        return Placeholder("tensors of more values than are stored (expanded ones: save a `clone()`)")
    if math.prod(shape) and offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) >= storage.count:
        raise ValueError("a tensor outside of its storage")
    return FileTensor(storage, offset, tuple(shape), tuple(stride))


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    """Return a tensor of a type that has no storage class of its own."""
    of_name = getattr(torch, dtype.name.removeprefix("torch."), None) if isinstance(dtype, Global) else None
    if not isinstance(of_name, torch.dtype) or not isinstance(storage, Storage):
        return Placeholder(f"tensors of type {getattr(dtype, 'name', 'unknown')}")
    return _tensor(Storage(storage.key, of_name, storage.count // of_name.itemsize), offset, shape, stride)


def _first(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, _type: Any, args: Any, *_: Any) -> Any:
    """Return a tensor of a subclass as the plain one that it is built from."""
    build = BUILDS.get(function.name) if isinstance(function, Global) else None
    return build(*args) if build else Placeholder(getattr(function, "name", "tensors of a subclass"))


def _other(kind: str) -> Any:
    return lambda *_: Placeholder(kind)


def _dict(pairs: Any = (), *_: Any) -> dict[str | int, Any]:
    pairs = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def _are_counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 2**60 for value in values)


# What stands for calls of these functions and classes in torch's files.
BUILDS: Mapping[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_sparse_tensor": _other("sparse tensors"),
    "torch._utils._rebuild_qtensor": _other("quantised tensors"),
    "torch._utils._rebuild_meta_tensor_no_storage": _other("tensors without values (of the meta device)"),
    "numpy.core.multiarray._reconstruct": _other("NumPy arrays"),
    "numpy._core.multiarray._reconstruct": _other("NumPy arrays"),
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
}
