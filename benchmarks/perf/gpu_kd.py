"""Bench of KD on a GPU: resnet32x4 -> resnet8x4, a single run and a pack of eight, against a plain PyTorch loop.

``make bench-gpu`` runs it; without a GPU it says so and exits with 2. The plain loop is what one writes first, with the
same recipe and precision: a DataLoader over torchvision's PIL transforms with pinned memory and a worker per core, the
teacher under no_grad, SGD, `.item()` each step. Our side is whole epochs, except for the evaluation, which is timed
separately. It prints two lines of JSON, for the pack and for the single run.

``--smoke`` runs the same on a CPU with small networks and few steps, to test this program: its figures mean nothing.
"""

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.perf.cifar import BATCH, INFO, Silent, fresh, images, science, targets
from benchmarks.perf.measurement import emit, in_turn
from benchmarks.perf.torchvision_cifar import Cifar
from harness.data.load import arrays
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.models.facts import measure_model
from harness.models.taps import describe_taps
from harness.planning import locate
from harness.spec.schema import Dataset
from harness.training.cuda.graph import Work, capture_cuda_graph
from harness.training.cuda.streams import raise_stream_limit
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import autocast, set_float32
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze

PRECISIONS = ("bf16", "tf32", "float32")
SINGLE, PACK, EAGER, COMPILED, PLAIN = "alone", "pack", "alone, no graph", "alone, teacher compiled", "plain"
SINGLE_TARGET, PACK_TARGET = 3.0, 6.0
# Kinds of CUDA kernels by parts of their names; the first kind that fits counts.
KINDS = (
    ("convolution or matrix product", ("conv", "gemm", "xmma", "cutlass", "cudnn", "wgrad", "dgrad", "fprop", "nvjet")),
    ("batch norm", ("batch_norm", "batchnorm", "bn_")),
    ("optimiser", ("multi_tensor", "fusedsgd", "fused_sgd")),
    ("copy or cast", ("copy", "memcpy", "memset", "cast", "fill")),
    ("reduction", ("reduce", "softmax")),
    ("elementwise", ("elementwise", "triton", "vectorized")),
)


@dataclass(frozen=True)
class Scale:
    """The size of a measurement."""

    device: str = "cuda"
    teacher: str = "resnet32x4"
    student: str = "resnet8x4"
    batch: int = BATCH
    batches: int | None = None  # per epoch; None: all of CIFAR-100
    epochs: int = 2  # the first is not counted
    members: int = 8
    plain_steps: int = 300
    workers: int = len(os.sched_getaffinity(0))
    rounds: int = 3
    matrix: int = 8192


SMOKE = Scale("cpu", "resnet8", "resnet8", batch=4, batches=3, members=2, plain_steps=2, workers=0, rounds=1, matrix=64)


class EpochTimes(Silent):
    """An observer that notes when each epoch ends; by then the device has finished its work."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        self.ends[member.history.epoch] = time.perf_counter()


class Bench:
    """Both sides of the bench, with the same images and networks."""

    def __init__(self, scale: Scale):
        self.scale, self.device = scale, torch.device(scale.device)
        pixels, labels = load()
        self.pixels, self.labels = (x[: scale.batch * scale.batches] if scale.batches else x for x in (pixels, labels))
        self.costs: dict[str, dict[str, float]] = {}
        self.graphs: dict[str, int] = {}
        self.plain_batches: Iterator[list[Tensor]] | None = None

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ours(self, side: str, precision: str, epochs: int | None = None) -> float:
        """Train with the harness; return the seconds of the fastest epoch after the first."""
        set_float32(precision)
        epochs = epochs or self.scale.epochs
        device, normalise = self.device, Normalise(INFO, self.device)
        pixels, labels = self.pixels.to(device), self.labels.to(device)
        loader = TensorLoader(pixels, labels, normalise, batch_size=self.scale.batch, crop_padding=4, flip=True, seed=0)
        model = fresh(self.scale.teacher)
        spec = describe_taps(model, INFO.image_shape)
        freeze(model, device)
        teacher = Teacher(model, self.scale.teacher, Path(), "", 0.0, spec)
        teacher.prepare(precision, self.scale.batch if side == COMPILED else None)
        student = science("kd", self.scale.teacher, self.scale.student, precision=precision, epochs=epochs)
        count = self.scale.members if side == PACK else 1
        members = {
            f"kd{i}": Member(student, teacher, labels, Classification(INFO.classes, INFO.image_shape), device)
            for i in range(count)
        }
        times, evalset = EpochTimes(), TensorEvalSet("test", pixels[:2], labels[:2], normalise)
        graphs = 0

        def capture(work: Work, generator: torch.Generator | None) -> Work:
            nonlocal graphs
            replay = capture_cuda_graph(work, generator) if device.type == "cuda" else work
            graphs += 1
            return replay

        trained = list(members.values())
        with contextlib.redirect_stdout(sys.stderr):  # a step that cannot be captured prints so
            Pack(members, loader, evalset, teacher, times, capture=None if side == EAGER else capture).train()
        self.graphs[f"{side} {precision}"] = graphs
        assert all(m.history.epoch == epochs for m in trained), "a member has failed"
        self.student = trained[0].student
        ends = [times.ends[i + 1] for i in range(epochs)]
        steps = len(loader) * epochs
        spent = Counter[str]()
        for m in trained:
            spent.update(m.history.costs)
        self.costs[f"{side} {precision}"] = {part: round(1000 * s / steps, 4) for part, s in spent.items()}
        return min(later - earlier for earlier, later in itertools.pairwise(ends))

    def plain(self, precision: str) -> float:
        """Train with the plain loop; return the mean seconds of a step."""
        set_float32(precision)
        device = self.device
        teacher, student = (fresh(name).to(device) for name in (self.scale.teacher, self.scale.student))
        teacher.eval()
        optimiser = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        if self.plain_batches is None:
            self.plain_batches = self._load_plainly()
        temperature, loss_sum = 4.0, 0.0
        for step in range(-self.scale.plain_steps // 5, self.scale.plain_steps):
            if step == 0:
                self.sync()
                began = time.perf_counter()
            x, y = (part.to(device, non_blocking=True) for part in next(self.plain_batches))
            with torch.no_grad(), autocast(device, precision):
                from_teacher = teacher(x).logits
            with autocast(device, precision):
                logits = student(x).logits
            log_p = F.log_softmax(logits.float() / temperature, dim=1)
            p_teacher = F.softmax(from_teacher.float() / temperature, dim=1)
            kd = F.kl_div(log_p, p_teacher, reduction="batchmean") * temperature**2
            loss = 0.1 * F.cross_entropy(logits.float(), y) + 0.9 * kd
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss_sum += loss.item()
        self.sync()
        return (time.perf_counter() - began) / self.scale.plain_steps

    def _load_plainly(self) -> Iterator[list[Tensor]]:
        workers = self.scale.workers
        loader = DataLoader(
            Cifar(self.pixels, self.labels), self.scale.batch, shuffle=True, drop_last=True, num_workers=workers,
            pin_memory=self.device.type == "cuda", persistent_workers=workers > 0,
        )  # fmt: skip
        while True:  # the first batch of an epoch comes late, as in any such loop
            yield from loader

    def evaluation(self, precision: str) -> float:
        """Return the seconds of one evaluation on as many images as the test set has."""
        normalise = Normalise(INFO, self.device)
        part = TensorEvalSet(
            "test", *(x[: INFO.test_size].to(self.device) for x in (self.pixels, self.labels)), normalise
        )
        task = Classification(INFO.classes, INFO.image_shape)
        task.evaluate(self.student, part, precision)
        began = time.perf_counter()
        task.evaluate(self.student, part, precision)
        return time.perf_counter() - began

    def matrix_peak(self) -> float:
        """Return the operations a second of a product of two square bfloat16 matrices, the median of twenty."""
        n = self.scale.matrix
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        seconds = []
        for _ in range(25):
            self.sync()
            began = time.perf_counter()
            a @ b
            self.sync()
            seconds.append(time.perf_counter() - began)
        return 2 * n**3 / sorted(seconds[5:])[10]

    def kernels(self, side: str, precision: str) -> dict[str, Any]:
        """Profile two short epochs; return the milliseconds a step of the GPU's kernels by kind, and the longest."""
        all_images = self.pixels, self.labels
        self.pixels, self.labels = self.pixels[: self.scale.batch * 60], self.labels[: self.scale.batch * 60]
        steps = 2 * len(self.pixels) / self.scale.batch
        activity = torch.profiler.ProfilerActivity
        try:
            with torch.profiler.profile(
                activities=[activity.CUDA if self.device.type == "cuda" else activity.CPU]
            ) as profile:
                self.ours(side, precision, epochs=2)
        finally:
            self.pixels, self.labels = all_images
        kinds, names = Counter[str](), Counter[str]()
        for event in profile.events():
            if event.device_type.name == self.device.type.upper():
                ms = event.device_time_total / 1000 / steps
                kind = (k for k, parts in KINDS if any(p in event.name.lower() for p in parts))
                kinds[next(kind, "other")] += ms
                names[event.name[:90]] += ms
        return {
            "ms_per_step": {k: round(ms, 4) for k, ms in kinds.most_common()},
            "longest": {k: round(ms, 4) for k, ms in names.most_common(12)},
        }


def load() -> tuple[Tensor, Tensor]:
    """Return CIFAR-100's training set from KD_DATA, or random images of its shape without KD_DATA."""
    if root := os.environ.get("KD_DATA"):
        data = arrays.read_dataset("cifar100", locate.dataset_folder(Dataset(name="cifar100"), Path(root)))
        return torch.from_numpy(data.train_images), torch.from_numpy(data.train_targets)
    return images(), targets()


def flop_per_image(scale: Scale) -> float:
    """Return the operations of convolutions and products: the teacher forward, the student forward and backward."""
    return 2.0 * (measure_model(scale.teacher).macs + 3 * measure_model(scale.student).macs)


def profiled(bench: Bench, side: str, precision: str) -> dict[str, Any]:
    try:
        return bench.kernels(side, precision)
    except Exception as error:  # not every machine allows profiling, and the other figures do not need it
        return {"not profiled": f"{type(error).__name__}: {error}".splitlines()[0]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perf.gpu_kd")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a CPU, to test this program")
    smoke = parser.parse_args().smoke
    if not smoke and not torch.cuda.is_available():
        print("error: this bench needs a CUDA GPU, and torch finds none here", file=sys.stderr)
        return 2
    raise_stream_limit()  # as a job does
    scale = SMOKE if smoke else Scale()
    bench = Bench(scale)
    steps = -(-len(bench.pixels) // scale.batch)
    step_images = len(bench.pixels) / steps
    sides: dict[str, Callable[[], float]] = {}
    for precision in PRECISIONS:
        sides[f"{PLAIN} {precision}"] = lambda p=precision: bench.plain(p)  # type: ignore[misc]
        for side in (SINGLE, PACK) + ((EAGER, COMPILED) if precision == "bf16" and not smoke else ()):
            sides[f"{side} {precision}"] = lambda s=side, p=precision: bench.ours(s, p) / steps  # type: ignore[misc]
    seconds = in_turn(sides, scale.rounds, budget_s=240)
    least = {name: min(s) for name, s in seconds.items()}

    peak = bench.matrix_peak()
    runs = {name: scale.members if name.startswith(PACK) else 1 for name in least}
    per_second = {
        name: (scale.batch if name.startswith(PLAIN) else step_images) * runs[name] / s for name, s in least.items()
    }
    evaluation = {p: bench.evaluation(p) for p in PRECISIONS}
    operations = flop_per_image(scale)
    shared = 2.0 * measure_model(scale.teacher).macs
    done = {n: (operations - shared) * v + shared * v / runs[n] for n, v in per_second.items()}
    detail: dict[str, Any] = {
        "pair": f"{scale.teacher} -> {scale.student}",
        "device": torch.cuda.get_device_name() if not smoke else "CPU, a smoke test",
        "torch": torch.__version__,
        "images": "CIFAR-100" if os.environ.get("KD_DATA") else "made up",
        "batch": scale.batch,
        "plain_workers": scale.workers,
        "ms_per_step": {name: round(1000 * s, 4) for name, s in least.items()},
        "images_per_s": {name: round(v, 1) for name, v in per_second.items()},
        "minutes_of_240_epochs": {
            f"{side} {p}": round(240 * (least[f"{side} {p}"] * steps + n * evaluation[p]) / 60, 3)
            for p in PRECISIONS
            for side, n in ((SINGLE, 1), (PACK, scale.members))
        },
        "matrix_tflops": round(peak / 1e12, 2),
        "share_of_matrix_peak": {name: round(v / peak, 4) for name, v in done.items()},
        "evaluation_ms": {p: round(1000 * s, 3) for p, s in evaluation.items()},
        "parts_ms_per_step": bench.costs,
        "graphs_recorded": bench.graphs,  # each member needs one, and the teacher
        "greatest_over_least": {name: round(max(s) / min(s), 3) for name, s in seconds.items()},
    }
    detail["kernels"] = {side: profiled(bench, side, "bf16") for side in (SINGLE, PACK)}

    def ratio(side: str, precision: str) -> float:
        return per_second[f"{side} {precision}"] / per_second[f"{PLAIN} {precision}"]

    others = {p: {side: round(ratio(side, p), 3) for side in (SINGLE, PACK)} for p in PRECISIONS}
    emit("gpu_pack", ratio(PACK, "bf16"), PACK_TARGET, {"members": scale.members, "ratios": others})
    emit("gpu_kd", ratio(SINGLE, "bf16"), SINGLE_TARGET, {"precision": "bf16", "ratios": others, **detail})
    return 0


if __name__ == "__main__":
    sys.exit(main())
