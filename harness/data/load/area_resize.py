"""Resizing by area as OpenCV does it (INTER_AREA of 8 bits), bit for bit and faster, where both sides shrink.

OpenCV adds up the three colours of a pixel one after the other, here they are four numbers of one instruction, the
fourth unused. Sums are made of the same 32-bit numbers in the same order, so that nothing differs.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from harness.data.compiled import compiled

_F32 = np.float32
_LANES = 4
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_BYTES = ir.VectorType(ir.IntType(8), _LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), _LANES)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, to: ir.VectorType) -> Any:
    """Return a pointer to four values of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), to.as_pointer())


@intrinsic
def _sum(_typing: Any, sums: Any, at: Any, pixels: Any, pixel: Any, shares: Any, first: Any, count: Any) -> Any:
    """Set four sums to those of ``count`` >= 1 pixels, one after the other, times their shares."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        weights = context.make_array(kinds[4])(context, builder, args[4]).data
        undefined = ir.Constant(_FLOATS, ir.Undefined)

        def value(k: Any) -> Any:
            place = builder.add(args[3], builder.mul(k, ir.Constant(k.type, 3)))
            four = builder.load(_pointer(context, builder, kinds[2], args[2], place, _BYTES), align=1)
            four = builder.uitofp(builder.zext(four, _INTEGERS), _FLOATS)
            weight = builder.load(builder.gep(weights, [builder.add(args[5], k)]))
            weight = builder.insert_element(undefined, weight, ir.IntType(32)(0))
            return builder.fmul(four, builder.shuffle_vector(weight, undefined, ir.Constant(_INTEGERS, [0] * _LANES)))

        sum_of_four = cgutils.alloca_once_value(builder, value(ir.Constant(args[6].type, 0)))
        with cgutils.for_range(builder, args[6], start=ir.Constant(args[6].type, 1)) as loop:
            builder.store(builder.fadd(builder.load(sum_of_four), value(loop.index)), sum_of_four)
        place = _pointer(context, builder, kinds[0], args[0], args[1], _FLOATS)
        builder.store(builder.load(sum_of_four), place, align=4)
        return context.get_dummy_value()

    return types.void(sums, types.intp, pixels, types.intp, shares, types.intp, types.intp), generate


@intrinsic
def _rounded(_typing: Any, sums: Any, at: Any, pixels: Any, pixel: Any) -> Any:
    """Write four sums between 0 and 255, rounded to even, as four bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        four = builder.load(_pointer(context, builder, kinds[0], args[0], args[1], _FLOATS), align=4)
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        four = builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.rint.v4f32"), [four])
        four = builder.trunc(builder.fptosi(four, _INTEGERS), _BYTES)
        builder.store(four, _pointer(context, builder, kinds[2], args[2], args[3], _BYTES), align=1)
        return context.get_dummy_value()

    return types.void(sums, types.intp, pixels, types.intp), generate


@compiled
def can_shrink(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Return whether ``shrink`` gives OpenCV's bits: it has other ways for sides that grow, and for whole numbers."""
    if height < to_height or width < to_width:
        return False
    return height % to_height != 0 or width % to_width != 0


@compiled
def shown(side: int, to: int, first: int, count: int) -> tuple[int, int]:
    """Return the first pixel of a side that makes up any of ``count`` new ones from the ``first`` on, and the first
    that comes after them.
    """
    scale = 1.0 / (to / side)
    return int(np.floor(first * scale)), min(int(np.ceil((first + count) * scale)) + 1, side)


@compiled
def _shares(side: int, to: int, first: int, count: int, starts: Any, pixels: Any, weights: Any) -> None:
    """Write which pixels of a side make up each of ``count`` new ones from the ``first`` on, and their shares."""
    scale, k = 1.0 / (to / side), 0
    for i in range(count):
        begin = (first + i) * scale
        end, cell = begin + scale, min(scale, side - begin)
        last = min(int(np.floor(end)), side - 1)
        inner = min(int(np.ceil(begin)), last)
        starts[i] = k
        if inner - begin > 1e-3:
            pixels[k], weights[k] = inner - 1, _F32((inner - begin) / cell)
            k += 1
        for pixel in range(inner, last):
            pixels[k], weights[k] = pixel, _F32(1.0 / cell)
            k += 1
        if end - last > 1e-3:
            pixels[k], weights[k] = last, _F32(min(min(end - last, 1.0), cell) / cell)
            k += 1
    starts[count] = k


@compiled
def shrink(pixels, stride, start, height, width, to_height, to_width, row, column, flip, image):  # type: ignore[no-untyped-def]
    """Write a window of a shrunk part of an image to ``image`` (size, size, 3) uint8, contiguous.

    Args:
        pixels: the image's, one after the other, and at least one byte more, uint8.
        stride: bytes of a row of the image.
        start: where the part begins; only pixels that the window shows are read.
        height: of the part; ``width`` likewise.
        to_height: what it is shrunk to; ``to_width`` likewise.
        row: the window's first; ``column`` likewise.
        flip: whether the window's columns are written in the reverse order.
    """
    size = len(image)
    across, down = np.empty(size + 1, np.int64), np.empty(size + 1, np.int64)
    columns, shares = np.empty(width + 2 * size, np.int64), np.empty(width + 2 * size, np.float32)
    rows, row_shares = np.empty(height + 2 * size, np.int64), np.empty(height + 2 * size, np.float32)
    _shares(width, to_width, column, size, across, columns, shares)
    _shares(height, to_height, row, size, down, rows, row_shares)
    for k in range(across[size]):
        columns[k] *= 3
    sums, total = np.empty(_LANES * size, np.float32), np.empty(_LANES * size, np.float32)
    summed = -1
    for y in range(size):
        for k in range(down[y], down[y + 1]):
            if rows[k] != summed:  # a row between two new ones counts for both
                summed = rows[k]
                base = start + summed * stride
                for x in range(size):
                    first = across[x]
                    _sum(sums, _LANES * x, pixels, base + columns[first], shares, first, across[x + 1] - first)
            share = row_shares[k]
            if k == down[y]:
                for i in range(_LANES * size):
                    total[i] = share * sums[i]
            else:
                for i in range(_LANES * size):
                    total[i] += share * sums[i]
        # A pixel is written with the first byte of the next one, which comes after it.
        to = 3 * size * y
        for i in range(size - 1):
            x = size - 1 - i if flip else i
            _rounded(total, _LANES * x, image, to + 3 * i)
        x = 0 if flip else size - 1
        for c in range(3):
            image[y, size - 1, c] = np.uint8(np.rint(total[_LANES * x + c]))
