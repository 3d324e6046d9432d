"""Counter-based random numbers: pure functions of (seed, epoch, stream, index), independent of the order of calls.

The mixing function is splitmix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators"), applied twice; all arithmetic is exact in 64-bit integers, so every device gives the same bits.
"""

import zlib

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def stream_key(seed: int, epoch: int, stream: str) -> int:
    """Return an integer in [0, 2^63) for (seed, epoch, stream), the seed of a generator or of the functions below."""
    h = zlib.crc32(stream.encode())
    for part in (seed, epoch):
        h = _mix_int((h + _GOLDEN) & _MASK) ^ (part & _MASK)
    return _mix_int(h) >> 1


def random_bits(seed: int, epoch: int, stream: str, indices: Tensor) -> Tensor:
    """Return 63 random bits for each index: (N,) int64 >= 0."""
    x = indices * _signed(_GOLDEN) + stream_key(seed, epoch, stream)
    return _mix(_mix(x)) & 0x7FFFFFFFFFFFFFFF


def random_integers(seed: int, epoch: int, stream: str, indices: Tensor, high: int) -> Tensor:
    """Return an integer in [0, high) for each index; the modulo's bias is below 1e-12 for ``high`` up to 9e6."""
    return random_bits(seed, epoch, stream, indices) % high


def random_permutation(seed: int, epoch: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the order of the training set in an epoch: a permutation of 0..n-1."""
    return torch.argsort(random_bits(seed, epoch, "order", torch.arange(n, device=device)), stable=True)


def seed_torch(seed: int) -> None:
    """Seed torch's own generators, of this process and its GPUs, as ``torch.manual_seed`` does.

    Where no GPU is in use, that would note the line of code that called it for every kind of device: milliseconds.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _logical_shift(x, 30)) * _signed(_M1)
    x = (x ^ _logical_shift(x, 27)) * _signed(_M2)
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, n: int) -> Tensor:
    return (x >> n) & ((1 << (64 - n)) - 1)
