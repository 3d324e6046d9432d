"""Stage `imagenet`: KD steps of ResNet34 -> ResNet18 at batch 512 with 224 pixels, on images that lie on the device.

The networks have random weights, which take as long as trained ones.
"""

from collections.abc import Generator
from contextlib import nullcontext

import torch
from torch import Tensor

from benchmarks.gpu.pack_trainer import INFO, Pair, Scale, time_pack
from benchmarks.gpu.stage_order import StageOrder
from harness.data.load.loader import Waiting
from harness.data.load.tensors import Normalise, TensorEvalSet
from harness.training.cuda.streams import raise_stream_limit
from harness.training.tasks.classification import Classification

NAME = "imagenet"
PAIR = Pair("torchvision:resnet34", "torchvision:resnet18")
CLASSES, PRECISION = 1000, "bf16"


class ResidentBatch:
    """A loader that yields the same batch of the device again and again."""

    def __init__(self, batch_size: int, side: int, device: torch.device):
        self.batch_size = batch_size
        images = torch.randn(batch_size, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
        indices = torch.arange(batch_size, device=device)
        self.batch = images, indices % CLASSES, indices

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        while True:
            yield self.batch


def main() -> None:
    raise_stream_limit()  # as a job does
    order = StageOrder.from_command_line()
    if order.smoke:
        torch.set_num_threads(1)
    device = torch.device(order.device)
    batch, side = (2, 32) if order.smoke else (512, 224)
    scale = Scale(batch, paced_steps=1 if order.smoke else 3, seconds=0.0 if order.smoke else 3.0, least_steps=2)
    task = Classification(CLASSES, (3, side, side))
    loader = ResidentBatch(batch, side, device)
    torch.manual_seed(0)
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8, device=device)
    few = TensorEvalSet("test", pixels, loader.batch[1][:2], Normalise(INFO, device))
    pace = time_pack(
        loader, task.build(PAIR.teacher), PAIR, ["kd"], PRECISION, scale, most=100, targets=loader.batch[1], task=task,
        evaluated=few,
    )  # fmt: skip
    order.findings.add(
        NAME, "classifier", pair=str(PAIR), precision=PRECISION, batch=batch, side=side,
        ms_per_step=round(1000 * pace.step, 3), images_per_s=round(batch / pace.step, 1),
        memory_mib=round(pace.memory / 2**20, 1), timed_steps=pace.steps,
    )  # fmt: skip


if __name__ == "__main__":
    main()
