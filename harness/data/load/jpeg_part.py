"""The part of a JPEG that a crop needs, as a JPEG of its own: copied without decoding, see ``jpeg_restarts``.

Its pixels are those of the whole JPEG, bit for bit, except at its cut edges, where a decoder that smooths colour lacks
what is beyond. What is not as ``jpeg_restarts`` writes it is refused, and has to be decoded whole.
"""

from typing import Any

import numpy as np

from harness.data.compiled import compiled, numba
from harness.data.jpeg_restarts import APP, LARGE, NAME, SIZES

MARGIN = 1  # pixels beyond a crop on which its colours depend
NARROW = 4  # pixels: libjpeg smooths no colour in an image of this width
_NAME = int.from_bytes(NAME, "big")
_SOF0, _SOF1, _DRI, _SOS, _EOI, _RST0, _RST7 = 0xC0, 0xC1, 0xDD, 0xDA, 0xD9, 0xD0, 0xD7


@compiled
def cut(jpeg: Any, height: Any, width: Any, top: Any, left: Any, bottom: Any, right: Any, out: Any) -> Any:
    """Write the JPEG of the part of an image that holds a crop to ``out``, and return (bytes, top, left, height,
    width): its length and its place in the image. The length is 0 where that cannot be done.

    Args:
        jpeg: the bytes of the image's, (n,) uint8 or ``bytes``.
        height: of the image, in pixels, as is ``width``; signed numbers, as are those that follow.
        top: the crop's first row; ``left``, ``bottom`` and ``right`` likewise, the last two being the first that are
            not in it.
        out: at least as long as ``jpeg``, a ``bytearray`` or int8; FFCV lets numba forget that it can write to uint8.
    """
    none = (0, 0, 0, height, width)
    at, o, frame, index, indexed, interval, size = 2, 2, 0, 0, 0, 0, len(jpeg)
    if size < 4 or jpeg[0] != 0xFF or jpeg[1] != 0xD8:
        return none
    out[0], out[1] = 0xFF, 0xD8
    marker = 0
    while marker != _SOS:
        if at + 4 > size or jpeg[at] != 0xFF:
            return none
        marker, end = jpeg[at + 1], at + 2 + _number(jpeg, at + 2)
        if end > size or end < at + 4 or (marker == _DRI and end < at + 6):
            return none
        if marker == APP and end > at + SIZES and _is_named(jpeg, at + 4):
            index, indexed = at + SIZES, end
        else:
            if marker == _SOF0 or marker == _SOF1:
                frame = o
                if end < at + 13 or end < at + 10 + 3 * int(jpeg[at + 9]):
                    return none
            elif marker >= _SOF0 and marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:
                return none  # progressive, lossless or arithmetic
            elif marker == _DRI:
                interval = _number(jpeg, at + 4)
            _copy(jpeg, at, end, out, o)
            o += end - at
        at = end
    if index == 0 or frame == 0 or interval == 0:
        return none
    if _number(out, frame + 5) != height or _number(out, frame + 7) != width:
        return none
    unit_height = unit_width = 8
    if out[frame + 9] == 3:
        unit_height, unit_width = 8 * (int(out[frame + 11]) & 15), 8 * (int(out[frame + 11]) >> 4 & 15)
        if out[frame + 14] != 0x11 or out[frame + 17] != 0x11 or unit_height == 0 or unit_width == 0:
            return none
    elif out[frame + 9] != 1:
        return none
    rows, columns = -(-height // unit_height), -(-width // unit_width)
    if columns % interval != 0:
        return none
    columns, unit_width = columns // interval, unit_width * interval  # intervals are what is copied
    first_row, first_column = max(top - MARGIN, 0) // unit_height, max(left - MARGIN, 0) // unit_width
    if first_column > 0 and width - first_column * unit_width <= NARROW:
        first_column -= 1
    last_row = min((bottom + MARGIN - 1) // unit_height, rows - 1)
    last_column = min((right + MARGIN - 1) // unit_width, columns - 1)
    first_y, first_x = first_row * unit_height, first_column * unit_width
    part_height = min((last_row + 1) * unit_height, height) - first_y
    part_width = min((last_column + 1) * unit_width, width) - first_x
    out[frame + 5], out[frame + 6] = part_height >> 8, part_height & 255
    out[frame + 7], out[frame + 8] = part_width >> 8, part_width & 255

    large = index + rows * columns  # where the sizes are that take two bytes
    if large > indexed:
        return none
    ends, copied = np.empty(columns, np.int64), 0
    for row in range(last_row + 1):
        start = at
        for column in range(columns):
            if column == first_column:
                start = at
            interval_size = int(jpeg[index + column])
            if interval_size == LARGE:
                if large + 2 > indexed:
                    return none
                interval_size = _number(jpeg, large)
                large += 2
            at += interval_size + 2
            ends[column] = at
        index += columns
        if row < first_row:
            continue
        stop = ends[last_column]
        if stop > size:
            return none
        _copy(jpeg, start, stop, out, o)
        for column in range(first_column, last_column + 1):
            marker_at = ends[column] - 1
            marker = jpeg[marker_at]
            if jpeg[marker_at - 1] != 0xFF or not (_RST0 <= marker <= _RST7 or marker == _EOI):
                return none
            out[o + marker_at - start] = _RST0 + (copied & 7)
            copied += 1
        o += stop - start
    out[o - 1] = _EOI
    return o, first_y, first_x, part_height, part_width


@compiled
def _number(jpeg: Any, at: int) -> int:
    return 256 * (int(jpeg[at]) & 255) + (int(jpeg[at + 1]) & 255)


@compiled
def _is_named(jpeg: Any, at: int) -> bool:
    name = 0
    for i in range(at, at + 4):
        name = 256 * name + int(jpeg[i])
    return name == _NAME


if numba is None:

    def _copy(source: Any, start: int, end: int, to: Any, at: int) -> None:
        to[at : at + end - start] = source[start:end]

else:

    @compiled
    def _copy(source: Any, start: int, end: int, to: Any, at: int) -> None:
        # Assigning slices takes numba four seconds to compile, and signed positions, which may count from the end, a
        # comparison for each byte.
        first, place = np.uint64(start), np.uint64(at)
        for i in range(np.uint64(end - start)):
            to[place + i] = source[first + i]
