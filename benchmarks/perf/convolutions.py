"""The convolutions of a pack's steps: their time there, and the time of the same convolutions alone.

``python -m benchmarks.perf.convolutions PRECISION`` prints it for the pack of five as JSON. A step cannot be faster
than its convolutions alone, which oneDNN computes: this shows how far it is from that.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.perf.cifar import THREADS, Trainer, clock
from benchmarks.perf.pack_process import FIVE, STEPS
from harness.training import host_memory

ROUNDS, REPEATS = 2, 5
CONVOLUTIONS = {
    torch.ops.aten.convolution.default: "forward",
    torch.ops.aten.convolution_backward.default: "backward",
}
Shape = tuple[Any, ...]  # hashable: a tensor stands as its dtype, shape and strides


def freeze(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (Tensor, value.dtype, tuple(value.shape), value.stride())
    return tuple(map(freeze, value)) if isinstance(value, Sequence) else value


def thaw(value: Any) -> Any:
    """Return an argument of the same shape with other values."""
    if isinstance(value, tuple) and value and value[0] is Tensor:
        _, dtype, shape, stride = value
        return torch.empty_strided(shape, stride, dtype=dtype).normal_()
    return list(map(thaw, value)) if isinstance(value, tuple) else value


class ConvolutionTimer(TorchDispatchMode):
    """Times each convolution in its place, and counts those of equal shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.calls: Counter[tuple[Any, Shape]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        began = clock()
        result = func(*args, **(kwargs or {}))
        self.seconds += clock() - began
        self.calls[func, freeze(args)] += 1
        return result


def operations(kind: str, args: Shape) -> float:
    """Return a convolution's floating-point operations: two per product."""
    if kind == "backward":
        gradient, weight, mask = args[0][2], args[2][2], args[-1]
        return 2.0 * gradient[0] * gradient[2] * gradient[3] * torch.Size(weight).numel() * (mask[0] + mask[1])
    images, weight, stride, padding = args[0][2], args[1][2], args[3], args[4]
    positions = [(images[i] + 2 * padding[i - 2] - weight[i]) // stride[i - 2] + 1 for i in (2, 3)]
    return 2.0 * images[0] * positions[0] * positions[1] * torch.Size(weight).numel()


def seconds_alone(work: Callable[[], object]) -> float:
    """Return the least seconds of one call."""
    work()
    seconds = []
    for _ in range(REPEATS):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def main() -> None:
    (precision,) = sys.argv[1:]
    host_memory.retain_freed_memory()
    torch.set_num_threads(THREADS)
    trainer = Trainer(STEPS, precision)
    trainer.train(FIVE)
    step = min(trainer.train(FIVE)[0] for _ in range(ROUNDS)) / STEPS
    timers = []
    for _ in range(ROUNDS):
        with ConvolutionTimer() as timer:
            trainer.train(FIVE)
        timers.append(timer)
    fastest = min(timers, key=lambda timer: timer.seconds)
    alone = {"forward": 0.0, "backward": 0.0}
    flops = dict.fromkeys(alone, 0.0)
    for (func, frozen), count in fastest.calls.items():
        kind, args = CONVOLUTIONS[func], thaw(frozen)
        alone[kind] += count * seconds_alone(lambda func=func, args=args: func(*args)) / STEPS  # type: ignore[misc]
        flops[kind] += count * operations(kind, frozen) / STEPS
    total, total_alone = sum(flops.values()), sum(alone.values())
    result = {
        "ms_per_step": round(1000 * step, 1),
        "convolutions_ms": round(1000 * fastest.seconds / STEPS, 1),
        "convolutions_alone_ms": round(1000 * total_alone, 1),
        "share": round(fastest.seconds / STEPS / step, 3),
        "share_alone": round(total_alone / step, 3),
        "gflop_per_step": round(total / 1e9, 1),
        "gflop_per_s": round(total / fastest.seconds * STEPS / 1e9, 1),
        "gflop_per_s_alone": round(total / total_alone / 1e9, 1),
        **{f"gflop_per_s_alone_{kind}": round(flops[kind] / alone[kind] / 1e9, 1) for kind in alone},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
