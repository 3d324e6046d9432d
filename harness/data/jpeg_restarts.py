"""JPEGs of which a part can be decoded: restart markers stand between their minimum coded units (MCUs), and an index
has the sizes of what is between them.

A restart marker makes what follows independent of what came before (ITU-T T.81, F.1.1.5 and E.1.4). So what a part of
the image is made of, copied together with its markers counted anew, is a JPEG of that part. Any reader opens such a
file: the index is an application's segment (APP11) behind the start of the image, which others pass over:

- FF EB, the segment's length, ``KDRI``;
- 32 bytes: the sha256 of the same image as it is encoded without markers, by which it is identified;
- 32 bytes: the sha256 of all that follows;
- a byte for each interval between markers, in their order: its size if that is below 255; then, for each of the others
  in their order, two bytes: its size. Sizes are of the compressed data without the marker.
"""

import hashlib

import numpy as np

APP, NAME = 0xEB, b"KDRI"
LARGE = 255  # stands for a size that follows after all of them
SIZES = 4 + len(NAME) + 64  # from the segment's marker on
_HEAD = 2 + 4 + len(NAME)  # of a file, up to the hashes
_SOS, _EOI, _LONGEST = 0xDA, 0xD9, 0xFFFF  # the longest segment, with the two bytes of its length


def intervals(width: int, unit_width: int, most: int) -> int:
    """Return how many MCUs stand between two markers: at most so many, and such that no interval crosses rows."""
    columns = -(-width // unit_width)
    return next(units for units in range(most, 0, -1) if columns % units == 0)


def with_index(marked: bytes, plain: bytes) -> bytes:
    """Return a baseline JPEG that has restart markers with their index; ``plain`` is the same image without markers.

    Where no index can hold the sizes, which takes an image of many thousand MCUs, that is ``plain`` itself.
    """
    scan = _scan(marked)
    data = np.frombuffer(marked, np.uint8)[scan:]
    ff = np.flatnonzero(data[:-1] == 0xFF)
    ends = ff[((data[ff + 1] & 0xF8) == 0xD0) | (data[ff + 1] == _EOI)]
    sizes = ends - np.concatenate([[0], ends[:-1] + 2])
    large = sizes[sizes >= LARGE]
    listed = np.minimum(sizes, LARGE).astype(np.uint8).tobytes() + large.astype(">u2").tobytes()
    length = SIZES - 2 + len(listed)
    if length > _LONGEST or (large > 0xFFFF).any():
        return plain
    rest = listed + marked[2:]
    hashes = hashlib.sha256(plain).digest() + hashlib.sha256(rest).digest()
    return marked[:2] + bytes([0xFF, APP]) + length.to_bytes(2, "big") + NAME + hashes + rest


def has_index(jpeg: bytes) -> bool:
    """Return whether a JPEG has an index, of its own bytes or of others."""
    return jpeg[2:4] == bytes([0xFF, APP]) and jpeg[6:_HEAD] == NAME


def plain_sha256(jpeg: bytes) -> str | None:
    """Return the sha256, in hex digits, of an indexed JPEG as it is encoded without markers; None without an index.

    Raises:
        ValueError: it is damaged.
    """
    if not has_index(jpeg):
        return None
    plain, rest = jpeg[_HEAD : _HEAD + 32], jpeg[_HEAD + 32 : _HEAD + 64]
    if hashlib.sha256(jpeg[_HEAD + 64 :]).digest() != rest:
        raise ValueError("its bytes are not those that its index was made of")
    return plain.hex()


def _scan(jpeg: bytes) -> int:
    """Return where the compressed data of the first scan begin."""
    at = 2
    while True:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == _SOS:
            return at
