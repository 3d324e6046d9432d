"""Restart markers put into a JPEG without loss: its coefficients stay, only what they are coded against changes.

The first coefficient of a block, its mean, is coded as a difference to that of the block before (ITU-T T.81,
F.1.1.5.1). After a marker there is none before: there, the difference is coded anew. All other bits are copied.
"""

from dataclasses import dataclass, field

import numpy as np

from harness.data import jpeg_restarts
from harness.data.compiled import compiled, numba

_FRAMES, _DHT, _DRI, _SOS, _RST0, _EOI = (0xC0, 0xC1), 0xC4, 0xDD, 0xDA, 0xD0, 0xD9
_TABLES = 4  # of each class: 0 to 3 for means, 4 to 7 for the other coefficients
# ITU-T T.81, table K.3: a code for each size of a difference, which tables that were made for one image may lack.
_ALL_SIZES = bytes([0, 1, 5, *[1] * 6, *[0] * 7, *range(12)])
_ALL = bytes([0, 63, 0])  # of a scan with all coefficients at once


class _Unfit(Exception):
    """A JPEG is of a kind that is left as it is."""


@dataclass
class _Header:
    segments: list[bytes] = field(default_factory=list)  # up to the start of scan, without a restart interval
    scan: bytes = b""  # the segment of its start
    height: int = 0  # pixels
    width: int = 0
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # component -> across, down
    restart: int = 0  # MCUs between the markers that it has; 0: none
    # By table: symbol and length of the code that 16 bits begin with, and each symbol's code and length; 0: none.
    lookups: np.ndarray = field(default_factory=lambda: np.zeros((2 * _TABLES, 1 << 16), np.uint16))
    codes: np.ndarray = field(default_factory=lambda: np.zeros((2 * _TABLES, 256), np.uint16))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros((2 * _TABLES, 256), np.uint8))


def is_installed() -> bool:
    """Return whether numba is, without which this would take seconds for each image."""
    return numba is not None


def with_markers(jpeg: bytes, most: int) -> bytes | None:
    """Return a JPEG with a restart marker after every few MCUs, at most ``most`` times 16 pixels; None where it is no
    baseline JPEG of one scan, or damaged.
    """
    try:
        header, data = _parse(jpeg)
        components, tables = _scan_components(header)
    except (_Unfit, LookupError, StopIteration, OverflowError):
        return None
    across, down = (max(sides) for sides in zip(*header.sampling.values(), strict=True))
    if len(components) == 1:
        across = down = 1
    columns, rows = -(-header.width // (8 * across)), -(-header.height // (8 * down))
    units = jpeg_restarts.intervals(header.width, 8 * across, max(1, 2 * most // across))
    out = np.empty(2 * (len(jpeg) - data) + 8 * columns * rows + 64, np.uint8)
    for table in {int(means) for means, _ in tables}:
        if not header.lengths[table, :12].all():
            _add_codes(header, table, _ALL_SIZES)
            header.segments.append(bytes([0xFF, _DHT, 0, 3 + len(_ALL_SIZES), table]) + _ALL_SIZES)
    of = header.lookups, header.codes, header.lengths, components, tables
    length = _recode(np.frombuffer(jpeg, np.uint8)[data:], *of, columns * rows, header.restart, units, out)
    if length == 0:
        return None
    interval = bytes([0xFF, _DRI, 0, 4, units >> 8, units & 255])
    return b"".join([*header.segments, interval, header.scan, out[:length].tobytes()])


def _parse(jpeg: bytes) -> tuple[_Header, int]:
    """Return a JPEG's header and where the data of its first scan begin."""
    header, at = _Header([jpeg[:2]]), 2
    while True:
        marker, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        segment, body = jpeg[at:end], jpeg[at + 4 : end]
        if jpeg[at] != 0xFF or end > len(jpeg):
            raise _Unfit
        if marker == _SOS:
            header.scan = segment
            return header, end
        if marker == _DHT:
            _add_tables(header, body)
        elif marker == _DRI:
            header.restart = int.from_bytes(body[:2], "big")
        elif marker in _FRAMES and body[0] == 8:
            header.height, header.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            for i in range(6, 6 + 3 * body[5], 3):
                header.sampling[body[i]] = body[i + 1] >> 4, body[i + 1] & 15
        elif 0xC0 <= marker <= 0xCF:
            raise _Unfit
        if marker != _DRI:
            header.segments.append(segment)
        at = end


def _add_tables(header: _Header, body: bytes) -> None:
    while body:
        table, end = _TABLES * (body[0] >> 4) + (body[0] & 3), 17 + sum(body[1:17])
        header.lookups[table] = 0
        for symbol, code, length in _add_codes(header, table, body[1:end]):
            first = code << (16 - length)
            header.lookups[table, first : first + (1 << (16 - length))] = length << 8 | symbol
        body = body[end:]


def _add_codes(header: _Header, table: int, definition: bytes) -> list[tuple[int, int, int]]:
    """Replace the codes of a table by those of a definition, and return symbols, their codes and lengths."""
    codes, code, symbols = [], 0, iter(definition[16:])
    for length, count in enumerate(definition[:16], 1):
        for _ in range(count):
            codes.append((next(symbols), code, length))
            code += 1
        code <<= 1
    header.lengths[table] = 0
    for symbol, code, length in codes:
        header.codes[table, symbol], header.lengths[table, symbol] = code, length
    return codes


def _scan_components(header: _Header) -> tuple[np.ndarray, np.ndarray]:
    """Return the component of each block of an MCU, and the two tables of each component."""
    count, scan = header.scan[4], header.scan[5:]
    if not count == len(header.sampling) in (1, 3) or scan[2 * count :] != _ALL or not header.height:
        raise _Unfit
    blocks, tables = [], []
    for i in range(count):
        across, down = header.sampling[scan[2 * i]] if count > 1 else (1, 1)
        if i and (across, down) != (1, 1) or not 0 < across * down <= 4:
            raise _Unfit
        blocks += [i] * (across * down)
        tables.append((scan[2 * i + 1] >> 4 & 3, _TABLES + (scan[2 * i + 1] & 3)))
    return np.array(blocks), np.array(tables)


@compiled
def _recode(data, lookups, codes, lengths, components, tables, units, restart, interval, out):  # type: ignore[no-untyped-def]
    """Write the data of a scan with markers after every ``interval`` of its ``units``, and return their length; 0: they
    are damaged, or lack a code.
    """
    at, o, pending, held, to_write, written = 0, 0, np.uint64(0), 0, np.uint64(0), 0
    before, last = np.zeros(len(tables), np.int64), np.zeros(len(tables), np.int64)  # means as they are read, written
    for unit in range(units):
        if restart and unit and unit % restart == 0:
            if at + 1 < len(data) and data[at] == 0xFF and data[at + 1] >= 0xD0 and data[at + 1] <= 0xD7:
                at += 2
            else:
                return 0
            pending, held = np.uint64(0), 0
            for component in range(len(tables)):
                before[component] = 0
        if unit and unit % interval == 0:
            for component in range(len(tables)):
                last[component] = 0
        for component in components:
            k = 0
            while k < 64:
                while held <= 32 and at < len(data):
                    byte = data[at]
                    if byte == 0xFF:
                        if at + 1 >= len(data) or data[at + 1] != 0:
                            break  # a marker: what is read beyond are zeros
                        at += 1
                    pending, held, at = pending << np.uint64(8) | np.uint64(byte), held + 8, at + 1
                first = pending >> np.uint64(held - 16) if held >= 16 else pending << np.uint64(16 - held)
                found = int(lookups[tables[component, 0 if k == 0 else 1], np.int64(first & np.uint64(0xFFFF))])
                length, symbol = found >> 8, found & 255
                extra = symbol if k == 0 else symbol & 15
                if length == 0 or length + extra > held:
                    return 0
                bits = (pending >> np.uint64(held - length - extra)) & np.uint64((1 << (length + extra)) - 1)
                held -= length + extra
                if k == 0:
                    value = np.int64(bits & np.uint64((1 << extra) - 1))
                    if extra and value < 1 << (extra - 1):
                        value -= (1 << extra) - 1
                    before[component] += value
                    difference = before[component] - last[component]
                    last[component] = before[component]
                    extra, size = 0, abs(difference)
                    while size:
                        extra, size = extra + 1, size >> 1
                    table = tables[component, 0]
                    length = int(lengths[table, extra])
                    if extra > 11 or length == 0:
                        return 0
                    value = difference if difference >= 0 else difference + (1 << extra) - 1
                    bits = np.uint64(codes[table, extra]) << np.uint64(extra) | np.uint64(value)
                    k = 1
                elif symbol == 0:
                    k = 64
                else:
                    k += (symbol >> 4) + 1
                to_write, written = to_write << np.uint64(length + extra) | bits, written + length + extra
                while written >= 8:
                    if o + 4 > len(out):
                        return 0
                    written -= 8
                    byte = np.uint8((to_write >> np.uint64(written)) & np.uint64(255))
                    out[o] = byte
                    o += 1
                    if byte == 0xFF:
                        out[o] = 0
                        o += 1
        if (unit + 1) % interval == 0 or unit + 1 == units:
            if o + 6 > len(out):
                return 0
            if written:  # ones up to the next byte
                filled = (to_write << np.uint64(8 - written)) | np.uint64((1 << (8 - written)) - 1)
                byte = np.uint8(filled & np.uint64(255))
                out[o] = byte
                o, written = o + 1, 0
                if byte == 0xFF:
                    out[o] = 0
                    o += 1
            out[o] = 0xFF
            out[o + 1] = 0xD9 if unit + 1 == units else 0xD0 + (unit // interval & 7)
            o += 2
    while at + 1 < len(data) and not (data[at] == 0xFF and data[at + 1] == 0xD9):
        return 0  # more data than the frame has room for
    return o
