"""Stage `large`: KD steps on images of ImageNet's size, and a detector's training steps, as far as they are at hand.

The classifiers have random weights, which take as long as trained ones, and their images lie on the device. The
detectors train on coco128 below the data root.
"""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu import mosaics
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.throughput import EpochTimes, Pair
from benchmarks.perf.cifar import INFO, science
from harness.data.load.tensors import Normalise, TensorEvalSet
from harness.models.taps import describe_taps
from harness.planning.plan import plan_sweep
from harness.training.cuda.graph import capture_cuda_graph
from harness.training.cuda.streams import raise_stream_limit
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.probe import measure_pack
from harness.training.probe_order import ProbeOrder
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze

NAME = "large"
PAIR = Pair("torchvision:resnet34", "torchvision:resnet18")
CLASSES, EPOCHS = 1000, 3
SMALL_COCO = (
    "recipe=coco128_quick",
    "dataset.train_subset=12",
    "pairs=[{teacher: fasterrcnn_mobilenet_v2_fpn64, student: fasterrcnn_mobilenet_v2_fpn64}]",
)
COCO_SECONDS = 40.0  # that its steps need at least, with the preparation of the images


class ResidentBatch:
    """A loader that yields the same batch of the device again and again."""

    def __init__(self, batch_size: int, side: int, steps: int, device: torch.device):
        self.batch_size, self._steps = batch_size, steps
        images = torch.randn(batch_size, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
        indices = torch.arange(batch_size, device=device)
        self.batch = images, indices % CLASSES, indices

    def __len__(self) -> int:
        return self._steps

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        for _ in range(first_step, self._steps):
            yield self.batch


def main() -> None:
    raise_stream_limit()  # as a job does
    order = StageOrder.from_command_line()
    if order.smoke:
        torch.set_num_threads(1)
    attempt(order, "ImageNet's size", lambda: imagenet_step(order))
    attempt(order, "coco128", lambda: coco_steps(order))


def attempt(order: StageOrder, what: str, measure: Callable[[], None]) -> None:
    """Measure; if something is not at hand, the finding says what."""
    try:
        measure()
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        order.findings.add(NAME, kind="not measured", what=what, why=why)


def imagenet_step(order: StageOrder) -> None:
    """Time KD steps of ResNet34 -> ResNet18 at batch 512 with images of 224 pixels."""
    device = torch.device(order.device)
    batch, side, steps = (2, 32, 2) if order.smoke else (512, 224, 20)
    set_float32("bf16")
    task, shape = Classification(CLASSES, (3, side, side)), (3, side, side)
    torch.manual_seed(0)
    model = task.build(PAIR.teacher)
    spec = describe_taps(model, shape)
    freeze(model, device)
    teacher = Teacher(model, PAIR.teacher, Path(), "", 0.0, spec)
    teacher.prepare("bf16")
    run = science("kd", PAIR.teacher, PAIR.student, precision="bf16", epochs=EPOCHS, batch_size=batch)
    loader = ResidentBatch(batch, side, steps, device)
    member = Member(run, teacher, loader.batch[1], task, device)
    pixels = torch.zeros(1, *shape, dtype=torch.uint8, device=device)
    times, few = EpochTimes(), TensorEvalSet("test", pixels, loader.batch[1][:1], Normalise(INFO, device))
    capture = capture_cuda_graph if device.type == "cuda" else None
    Pack({"kd": member}, loader, few, teacher, times, capture=capture).train()
    step = min(b - a for a, b in itertools.pairwise(times.ends[i + 1] for i in range(EPOCHS))) / steps
    order.findings.add(
        NAME, kind="classifier", pair=str(PAIR), precision="bf16", batch=batch, side=side,
        ms_per_step=round(1000 * step, 3), images_per_s=round(batch / step, 1), memory_mib=peak_memory(device),
    )  # fmt: skip


def coco_steps(order: StageOrder) -> None:
    """Time 200 training steps of recipe coco_1x."""
    if not (folders := mosaics.find(order.data, "coco128") if order.data else []):
        raise FileNotFoundError("no folder coco128 below the data root")
    if order.seconds_left < COCO_SECONDS and not order.smoke:
        raise TimeoutError(f"{order.seconds_left:.0f} s are left")
    prepared = order.work / "coco128_prepared"
    if not prepared.exists():
        command = ["harness.prepare", "coco", "--source", str(folders[0]), "--out", str(prepared)]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    file, changes = Path(__file__).with_name("coco128_steps.yaml"), SMALL_COCO if order.smoke else ()
    planned = plan_sweep(file, order.work / "coco_store", order.work, changes)
    student = next(run.science for run in planned.plan.runs.values() if run.science.teacher)
    if order.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.time()
    folder = order.work / f"coco_steps_{began:.0f}"
    probe = ProbeOrder(
        sciences=[], data=str(prepared), threads=4, steps=2 if order.smoke else 200,
        seconds=max(5.0, order.seconds_left - 10), folder=str(folder), answer="", started_at=began,
    )  # fmt: skip
    timing = measure_pack({0: student}, folder, probe)
    paces = timing.clock.paces
    order.findings.add(
        NAME, kind="detector", pair=f"{student.teacher_model} -> {student.student}", batch=student.recipe.batch_size,
        steps=len(paces) * timing.clock.at_once, seconds_per_step=round(sum(paces) / len(paces), 4),
        memory_mib=peak_memory(torch.device(order.device)),
    )  # fmt: skip


def peak_memory(device: torch.device) -> float | None:
    """Return the MiB that were reserved on a GPU at most; None on a CPU."""
    return round(torch.cuda.max_memory_reserved() / 2**20, 1) if device.type == "cuda" else None


if __name__ == "__main__":
    main()
