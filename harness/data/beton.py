"""FFCV's .beton files, version 2 (Leclerc et al. 2023, arXiv:2306.12517), read and written with numpy only.

A file is a header, the fields' descriptions, a row of metadata for each sample, pages of data, and a table of the
position of each sample's data in the pages. Our files have the fields ``image`` (a JPEG, or its pixels), ``label`` and
``index``.
FFCV decodes each image and encodes it again; here JPEGs are copied, so that an image which needs no change keeps its
bytes.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from harness.data.load.arrays import WrongData

PAGE = 1 << 23  # bytes; no sample crosses from one page into the next, so none is larger
_VERSION = 2
_HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True
)
_FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8"), ("index", "<i8")], align=True)
_ROOM = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])
_INT, _RGB = 1, 2  # FFCV's numbers of its field types
_FIELDS = (("image", _RGB), ("label", _INT), ("index", _INT))
JPEG, PIXELS = 0, 1  # FFCV's modes of an image
CHANNELS = 3
_METADATA = _HEADER.itemsize + len(_FIELDS) * _FIELD.itemsize  # its position in the file


class Beton:
    """A .beton file with the fields ``image``, ``label`` and ``index``."""

    def __init__(self, content: np.ndarray, samples: np.ndarray, sizes: np.ndarray):
        self.labels = samples["label"].astype(np.int64)  # (N,)
        self.indices = samples["index"].astype(np.int64)  # (N,)
        self.heights = samples["image"]["height"].astype(np.int32)  # (N,) pixels
        self.widths = samples["image"]["width"].astype(np.int32)  # (N,) pixels
        self.are_pixels = samples["image"]["mode"] == PIXELS  # (N,) whether an image is stored as pixels, not a JPEG
        self.content = content  # of the whole file: (size,) uint8, mapped
        self.starts = samples["image"]["pointer"].astype(np.int64)  # (N,) positions of the images' bytes in it
        self.sizes = sizes  # (N,) int64 bytes

    def __len__(self) -> int:
        return len(self.labels)

    def jpeg(self, i: int) -> np.ndarray:
        """Return the bytes of an image that is a JPEG: (size,) uint8, a view of the mapped file."""
        start = self.starts[i]
        return self.content[start : start + self.sizes[i]]

    def pixels(self, i: int) -> np.ndarray:
        """Return an image that is stored as pixels: (height, width, 3) uint8, a view of the mapped file."""
        return self.jpeg(i).reshape(self.heights[i], self.widths[i], CHANNELS)


def read_beton(path: Path) -> Beton:
    """Map a file, and refuse one that points outside itself.

    Raises:
        WrongData: it is torn, or not of this form.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size < _METADATA:
        raise WrongData(f"{path}: not a .beton file: {size} bytes")
    content = np.memmap(path, np.uint8, "r").view(np.ndarray)
    header = content[: _HEADER.itemsize].view(_HEADER)[0]
    fields = content[_HEADER.itemsize : _METADATA].view(_FIELD)
    if header["version"] != _VERSION:
        raise WrongData(f"{path}: not a .beton file of version {_VERSION}")
    stated_fields = [(f["name"].tobytes().rstrip(b"\0"), int(f["type"])) for f in fields]
    if header["fields"] != len(_FIELDS) or stated_fields != [(name.encode(), kind) for name, kind in _FIELDS]:
        raise WrongData(f"{path}: expected the fields {', '.join(name for name, _ in _FIELDS)}")

    count, table = int(header["samples"]), int(header["table"])
    metadata_end = _METADATA + count * _SAMPLE.itemsize
    if not metadata_end <= table <= size or table + count * _ROOM.itemsize != size:
        raise WrongData(f"{path}: torn: {size:,} bytes do not hold {count:,} samples and their table at {table:,}")
    samples = np.frombuffer(content[_METADATA:metadata_end].tobytes(), _SAMPLE)
    rooms = np.frombuffer(content[table:].tobytes(), _ROOM)
    rooms = rooms[np.argsort(rooms["sample"], kind="stable")]  # FFCV's own writer leaves them in its workers' order
    starts, sizes = rooms["pointer"], rooms["size"]
    pointers = samples["image"]["pointer"]
    inside = (metadata_end <= starts) & (starts <= table) & (sizes <= table - np.minimum(starts, table))
    if not (np.array_equal(rooms["sample"], np.arange(count)) and np.array_equal(starts, pointers) and inside.all()):
        raise WrongData(f"{path}: damaged: its table and its samples' pointers disagree")
    modes, areas = samples["image"]["mode"], samples["image"]["height"].astype(np.uint64) * samples["image"]["width"]
    wrong = (sizes != areas * CHANNELS) | (areas == 0)  # for pixels
    if (modes > PIXELS).any() or wrong[modes == PIXELS].any():
        raise WrongData(f"{path}: holds images that are neither JPEGs nor pixels")
    return Beton(content, samples, sizes.astype(np.int64))


class Writer:
    """A .beton file that is written sample by sample; only the metadata stay in memory. The file is complete once
    ``finish`` returns.

    To resume an unfinished file, place the samples it holds again, without their bytes, and truncate it to ``end``: the
    position of a sample depends only on the sizes of those before it.
    """

    def __init__(self, file: BinaryIO, capacity: int):
        """``file``: open for writing and seeking. ``capacity``: the most samples that will be added."""
        self.file = file
        self._samples = np.zeros(capacity, _SAMPLE)
        self._rooms = np.zeros(capacity, _ROOM)
        self.count = 0
        self.end = _to_page(_METADATA + self._samples.nbytes)  # of the data so far: a position in the file

    def place(self, label: int, height: int, width: int, size: int, mode: int = JPEG) -> int:
        """Reserve room for the next sample and return its position in the file; its ``index`` is its rank."""
        if size > PAGE:
            raise ValueError(f"an image of {size} bytes does not fit a page of {PAGE}")
        start = self.end if self.end % PAGE + size <= PAGE else _to_page(self.end)
        self._samples[self.count] = (mode, width, height, start), label, self.count
        self._rooms[self.count] = self.count, start, size
        self.count += 1
        self.end = start + size
        return start

    def add(self, label: int, height: int, width: int, content: bytes, mode: int = JPEG) -> None:
        """Add a sample, whose content is what ``mode`` says."""
        self.file.seek(self.place(label, height, width, len(content), mode))
        self.file.write(content)

    @property
    def labels(self) -> np.ndarray:
        """Return the labels of the samples so far, in the order in which they were added: (count,) int64."""
        return self._samples["label"][: self.count]

    def finish(self, order: np.ndarray | None = None) -> None:
        """Write everything except the images. ``order``: the samples' numbers as the file is to list them, if it is
        not the order in which they were added.
        """
        samples, rooms = self._samples[: self.count], self._rooms[: self.count]
        if order is not None:
            samples, rooms = _rows(samples, order), _rows(rooms, order)
            samples["index"] = rooms["sample"] = np.arange(self.count)
        fields = np.zeros(len(_FIELDS), _FIELD)
        for field, (name, kind) in zip(fields, _FIELDS, strict=True):
            field["type"] = kind
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        table = _to_page(self.end)
        header = np.array((_VERSION, len(_FIELDS), PAGE, self.count, table), _HEADER)
        self.file.seek(0)
        for part in (header, fields, samples):
            self.file.write(part.tobytes())
        self.file.truncate(table)
        self.file.seek(table)
        self.file.write(rooms.tobytes())


def _rows(table: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return rows of a table with the zeros between their fields, which numpy does not copy otherwise."""
    as_bytes = table.view(np.uint8).reshape(len(table), table.itemsize)
    return as_bytes[order].view(table.dtype)[:, 0]


def _to_page(position: int) -> int:
    """Return the first page boundary at or after a position."""
    return -(-position // PAGE) * PAGE
