"""Operations compiled by numba, for images on a CPU where numba is installed, as it is with FFCV.

They give the bits of ``operations`` and ``geometry`` in one pass over an image, where torch takes ten to thirty. They
are compiled when they are first called, which takes some seconds, and kept for later processes.
"""

import numpy as np

from harness.data.compiled import compiled

F32 = np.float32
CODES = {"brightness": 2, "posterize": 2, "solarize": 2, "solarize_add": 2, "invert": 2, "contrast": 3,
         "color": 4, "sharpness": 5, "autocontrast": 6, "equalize": 7}  # fmt: skip
MOVES = 1  # code of the geometric operations


@compiled
def augment(images, codes, maps, tables, factors, fill, taps, result):  # type: ignore[no-untyped-def]
    """Write augmented images, (B, H, W, C) uint8, to ``result``; one operation per image."""
    for i in range(len(images)):
        image, to, code, factor = images[i], result[i], codes[i], factors[i]
        if code == 1 and taps == 1:
            _nearest(image, maps[i], fill, to)
        elif code == 1:
            _interpolate(image, maps[i], fill, taps, to)
        elif code == 2:
            _look_up(image.ravel(), tables[i], to.ravel())
        elif code == 3:
            _contrast(image, factor, to)
        elif code == 4 and image.shape[2] == 3:
            _color(image.reshape(-1, 3), factor, to.reshape(-1, 3))
        elif code == 5 and min(image.shape[0], image.shape[1]) >= 3:
            _sharpness(image, factor, to)
        elif code == 6:
            _autocontrast(image, to)
        elif code == 7:
            _equalize(image, to)
        else:
            to.ravel()[:] = image.ravel()


@compiled
def _nearest(image, units, fill, to):  # type: ignore[no-untyped-def]
    height, width, channels = image.shape
    a, b, c, d, e, f = units
    if d == 0 and e == 1 << 16:
        _shift_rows(image, b, c, f >> 16, fill, to)
        return
    for y in range(height):
        for x in range(width):
            column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
            is_inside = 0 <= column < width and 0 <= row < height
            if is_inside and channels == 3:  # a loop over the channels takes twice as long
                to[y, x, 0] = image[row, column, 0]
                to[y, x, 1] = image[row, column, 1]
                to[y, x, 2] = image[row, column, 2]
            elif is_inside:
                for channel in range(channels):
                    to[y, x, channel] = image[row, column, channel]
            else:
                for channel in range(channels):
                    to[y, x, channel] = fill[channel]


@compiled
def _shift_rows(image, slope, shift, down, fill, to):  # type: ignore[no-untyped-def]
    height, width, channels = image.shape
    for y in range(height):
        row, first = y + down, (slope * y + shift) >> 16
        begin, end = min(max(-first, 0), width), max(min(width - first, width), 0)
        if not 0 <= row < height:
            begin = end = width
        for x in range(begin):
            for channel in range(channels):
                to[y, x, channel] = fill[channel]
        if begin < end:
            source, target = image[row, begin + first : end + first].ravel(), to[y, begin:end].ravel()
            for k in range(len(source)):
                target[k] = source[k]
        for x in range(max(begin, end), width):
            for channel in range(channels):
                to[y, x, channel] = fill[channel]


@compiled
def _interpolate(image, units, fill, taps, to):  # type: ignore[no-untyped-def]
    height, width, channels = image.shape
    a, b, c, d, e, f = units
    across, down = np.empty(taps, np.float32), np.empty(taps, np.float32)
    half, one = 1 << 15, 1 << 16
    for y in range(height):
        for x in range(width):
            column, row = a * x + b * y + c, d * x + e * y + f
            if not (-half <= column < width * one - half and -half <= row < height * one - half):
                for channel in range(channels):
                    to[y, x, channel] = fill[channel]
                continue
            _tap_weights(F32(column & (one - 1)) / F32(one), across)
            _tap_weights(F32(row & (one - 1)) / F32(one), down)
            column, row = (column >> 16) + 1 - taps // 2, (row >> 16) + 1 - taps // 2
            for channel in range(channels):
                total = F32(0)
                for i in range(taps):
                    line = F32(0)
                    from_row = min(max(row + i, 0), height - 1)
                    for j in range(taps):
                        value = image[from_row, min(max(column + j, 0), width - 1), channel]
                        line += F32(value) * across[j]
                    total += line * down[i]
                to[y, x, channel] = np.uint8(min(max(total, F32(0)), F32(255)))


@compiled
def _tap_weights(t, weights):  # type: ignore[no-untyped-def]
    u = F32(1) - t
    if len(weights) == 2:
        weights[0], weights[1] = u, t
        return
    two = F32(2)
    weights[0], weights[3] = -t * u * u, -u * t * t
    weights[1], weights[2] = F32(1) - two * t * t + t * t * t, F32(1) - two * u * u + u * u * u


@compiled
def _look_up(values, table, to):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        to[i] = table[values[i]]


@compiled
def _blend(start, end, factor):  # type: ignore[no-untyped-def]
    return np.uint8(min(max((end - start) * factor + start, F32(0)), F32(255)))


@compiled
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    # In float32, where all is exact: numba's integers would become 64 bits wide.
    total = F32(19595) * F32(red) + F32(38470) * F32(green) + F32(7471) * F32(blue) + F32(32768)
    return np.floor(total * F32(1 / 65536))


@compiled
def _contrast(image, factor, to):  # type: ignore[no-untyped-def]
    values, total = image.ravel(), 0
    count = len(values)
    if image.shape[2] == 3:
        count //= 3
        for i in range(count):
            total += int(_grey(values[3 * i], values[3 * i + 1], values[3 * i + 2]))
    else:
        for i in range(count):
            total += values[i]
    mean = F32((2 * total + count) // (2 * count))
    table = np.empty(256, np.uint8)
    for i in range(256):
        table[i] = _blend(mean, F32(i), factor)
    _look_up(values, table, to.ravel())


@compiled
def _color(values, factor, to):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        red, green, blue = values[i, 0], values[i, 1], values[i, 2]
        grey = _grey(red, green, blue)
        to[i, 0] = _blend(grey, F32(red), factor)
        to[i, 1] = _blend(grey, F32(green), factor)
        to[i, 2] = _blend(grey, F32(blue), factor)


@compiled
def _sharpness(image, factor, to):  # type: ignore[no-untyped-def]
    height, width, c = image.shape
    rows, target = image.reshape(height, width * c), to.reshape(height, width * c)
    sums, end = np.empty(width * c, np.float32), (width - 1) * c
    target[0], target[height - 1] = rows[0], rows[height - 1]
    # Slices that begin at 0: an index that could be negative would keep the loops from being vectorised.
    left, middle, right = sums[: end - c], sums[c:end], sums[2 * c :]
    for y in range(1, height - 1):
        above, row, below = rows[y - 1], rows[y], rows[y + 1]
        for k in range(len(sums)):
            sums[k] = F32(above[k]) + F32(row[k]) + F32(below[k])
        for k in range(c):
            target[y, k] = row[k]
            target[y, end + k] = row[end + k]
        centre, inner = row[c:end], target[y, c:end]
        for k in range(len(centre)):
            value = F32(centre[k])
            total = left[k] + middle[k] + right[k] + F32(4) * value + F32(6.5)
            inner[k] = _blend(np.floor(total * F32(1 / 13)), value, factor)


@compiled
def _autocontrast(image, to):  # type: ignore[no-untyped-def]
    height, width, c = image.shape
    rows = image.reshape(height, width * c)
    low, high = rows[0].copy(), rows[0].copy()
    for y in range(1, height):
        row = rows[y]
        for k in range(width * c):
            low[k] = min(low[k], row[k])
            high[k] = max(high[k], row[k])
    tables = np.empty((c, 256), np.uint8)
    for channel in range(c):
        least, most = np.float64(low[channel::c].min()), np.float64(high[channel::c].max())
        for i in range(256):
            tables[channel, i] = i
        if most > least:
            scale = 255.0 / (most - least)
            for i in range(256):
                tables[channel, i] = np.uint8(min(max(i * scale + -least * scale, 0.0), 255.0))
    _look_up_channels(image.reshape(-1, c), tables, to.reshape(-1, c))


@compiled
def _equalize(image, to):  # type: ignore[no-untyped-def]
    c = image.shape[2]
    values = image.reshape(-1, c)
    counts, tables = np.zeros((c, 256), np.int64), np.empty((c, 256), np.uint8)
    for i in range(len(values)):
        for channel in range(c):
            counts[channel, values[i, channel]] += 1
    for channel in range(c):
        last = 255
        while counts[channel, last] == 0:
            last -= 1
        step, below = (len(values) - counts[channel, last]) // 255, 0
        for i in range(256):
            tables[channel, i] = min((below + step // 2) // step, 255) if step else i
            below += counts[channel, i]
    _look_up_channels(values, tables, to.reshape(-1, c))


@compiled
def _look_up_channels(values, tables, to):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        for channel in range(values.shape[1]):
            to[i, channel] = tables[channel, values[i, channel]]
