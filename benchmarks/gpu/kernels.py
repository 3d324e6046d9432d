"""The kernels of a few steps on a GPU, by kind and the longest ones, from torch's profiler."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

# Kinds of CUDA kernels by parts of their names; the first kind that fits counts.
KINDS = (
    ("convolution or matrix product", ("conv", "gemm", "xmma", "cutlass", "cudnn", "wgrad", "dgrad", "fprop", "nvjet")),
    ("batch norm", ("batch_norm", "batchnorm", "bn_")),
    ("optimiser", ("multi_tensor", "fusedsgd", "fused_sgd")),
    ("copy or cast", ("copy", "memcpy", "memset", "cast", "fill")),
    ("reduction", ("reduce", "softmax")),
    ("elementwise", ("elementwise", "triton", "vectorized")),
)


class KernelProfile:
    """A profile that is started and stopped around some steps. On a CPU it has torch's operators instead of kernels."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        activity = torch.profiler.ProfilerActivity
        self._profile = torch.profiler.profile(activities=[activity.CUDA if self._cuda else activity.CPU])

    def start(self) -> None:
        self._profile.start()

    def stop(self) -> None:
        self._profile.stop()

    def per_step(self, steps: int) -> dict[str, Any]:
        """Return milliseconds per step: in which some kernel ran, and the sums by kind and of the longest kernels."""
        kinds, names = Counter[str](), Counter[str]()
        spans = []
        for event in self._profile.events() or ():
            if (event.device_type.name == "CUDA") != self._cuda:
                continue
            ms = (event.device_time_total if self._cuda else event.self_cpu_time_total) / 1000 / steps
            kind = (k for k, parts in KINDS if any(part in event.name.lower() for part in parts))
            kinds[next(kind, "other")] += ms
            names[event.name[:90]] += ms
            spans.append((event.time_range.start, event.time_range.end))
        return {
            "busy_ms_per_step": round(covered(spans) / 1000 / steps, 4),
            "by_kind": {k: round(ms, 4) for k, ms in kinds.most_common()},
            "longest": {k: round(ms, 4) for k, ms in names.most_common(12)},
        }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals (start, end): kernels of several streams run at the same time."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
