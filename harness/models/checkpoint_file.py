"""Checkpoints on disk: their content, with tensors that are read when they are asked for. Nothing in them is run."""

import io
import json
import math
import pickletools
import struct
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from harness.models.other_files import describe_archive, describe_other, describe_tar
from harness.models.pickled_data import Placeholder, read_pickle
from harness.models.stored_tensors import BUILDS, MOST_DIMS, FileTensor, Storage, are_counts, storage_of, tensor_of

_MAGIC = 0x1950A86A20F9469CFC6C  # the first of the pickles in files that torch wrote before version 1.6
DAMAGED = "is damaged or cut short: its list of tensors cannot be read"
_MOST_HEADER = 100_000_000  # bytes, safetensors' own limit
_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class WrongFile(Exception):
    """A file that is no checkpoint, or a damaged one; the text continues a sentence that begins with its name."""


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
            raise WrongFile(DAMAGED) from None
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
        count = math.prod(shape[:MOST_DIMS])
        if len(shape) > MOST_DIMS or not are_counts((first, last, *shape)) or count * dtype.itemsize != last - first:
            raise WrongFile("is a damaged safetensors file: a tensor's size differs from its shape")
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        tree[name] = tensor_of(Storage(name, dtype, count), 0, shape, strides)
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
    order = entries.get(f"{root}byteorder")
    if order and (stated := _content(file, order).strip()) != b"little":
        is_big = stated == b"big"  # else a copy as text has moved everything
        raise WrongFile("was written on a machine with another byte order" if is_big else DAMAGED)
    checkpoint.tree = read_pickle(io.BytesIO(_content(file, entries[f"{root}data.pkl"])), BUILDS, storage_of)
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
        read_pickle(file, {}, storage_of)

    def storage(identity: Any) -> Any:
        found = storage_of(identity)
        if isinstance(found, Storage):
            storages.setdefault(found.key, found)
        return found

    checkpoint.tree = read_pickle(file, BUILDS, storage)
    for key in read_pickle(file, {}, storage_of):
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
    for _ in range(read_pickle(file, {}, storage_of)):
        key, location, kind = read_pickle(file, {}, storage_of)
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage = storage_of(("storage", kind, str(key), location, count))
        position, length = file.tell(), count * storage.dtype.itemsize
        if position + length > size:
            raise WrongFile("is cut short or damaged")
        objects[key], checkpoint.positions[str(key)] = storage, (position, length)
        file.seek(position + length)
    for key, root, start, count in read_pickle(file, {}, storage_of):
        whole = objects[root]
        if not are_counts((start, count)) or start + count > whole.count:
            raise ValueError("a view outside of its storage")
        objects[key] = Storage(whole.key, whole.dtype, count, start)
    file.seek(starts["tensors"])
    for _ in range(read_pickle(file, {}, storage_of)):
        key, storage_key, _kind = read_pickle(file, {}, storage_of)
        (dims,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= dims <= MOST_DIMS:
            raise ValueError("a tensor without a shape")
        numbers = struct.unpack(f"<{2 * dims + 1}q", file.read(16 * dims + 8))
        objects[key] = tensor_of(objects[storage_key], numbers[-1], numbers[:dims], numbers[dims:-1])
    file.seek(starts["pickle"])
    checkpoint.tree = read_pickle(file, BUILDS, lambda key: key[0] if isinstance(key, tuple) else objects[int(key)])
