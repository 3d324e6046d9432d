"""Bench of RandAugment in seconds per image: batched pixels against torchvision on PIL images, on one thread.

Two lines are printed, for CIFAR's 32 px and ImageNet's 224 px. Both sides turn pixels into pixels: the conversion of
PIL images to tensors and the normalisation are in neither. Images are smooth, as photographs are.
`detail` has the share of a training step as well: forward and backward pass of a student on the same batch.
"""

from collections.abc import Callable

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from benchmarks.perf.cifar import CLOCK, clock
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs
from harness.data.augment.pixels import PixelAugmentation
from harness.models.zoo import build_model
from harness.spec.augmentation import canonical_augment
from harness.training import host_memory

PAIRS = 7
# Side of images, batches augmented together, batch size of the step, the student and the number of PIL images.
CASES = ((32, 8, 128, "resnet20", 256), (224, 1, 32, "torchvision:resnet18", 48))


def main() -> None:
    host_memory.retain_freed_memory()
    torch.set_num_threads(1)
    for size, batches, batch, student, count in CASES:
        measure(size, batches, batch, student, count)


def measure(size: int, batches: int, batch: int, student: str, count: int) -> None:
    """Print the line for images of a size."""
    pixels = smooth_images(batches * batch, size)
    pil_images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels[:count].contiguous()]
    policy = canonical_augment({"randaugment": {}})
    assert policy
    augment, transform = PixelAugmentation(policy, compile_after=0), v2.RandAugment()
    step = training_step(student, pixels[:batch])
    epoch = 0

    def ours(images: Tensor) -> Callable[[], float]:
        indices = torch.arange(len(images))

        def run() -> float:
            nonlocal epoch
            epoch += 1
            return timed(lambda: augment(images, 0, epoch, indices, ""), len(images))

        return run

    def pil() -> float:
        return timed(lambda: [transform(image) for image in pil_images], len(pil_images))

    sides = {
        "ours": ours(pixels),
        "one_batch": ours(pixels[:batch]),
        "pil": pil,
        "step": lambda: timed(step, batch),
    }
    for side in sides.values():
        side()  # warm up
    seconds = in_turn(sides, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["pil"], seconds["ours"])
    least = {name: min(values) for name, values in seconds.items()}
    detail = {
        "size": size, "batch": batch, "batches_at_once": batches, "student": student, "clock": CLOCK,
        "us_per_image": {name: round(1e6 * value, 1) for name, value in least.items()},
        "share_of_step": round(least["one_batch"] / least["step"], 4),
        "torchvision": torchvision.__version__, **spread,
    }  # fmt: skip
    emit(f"randaugment_{size}", ratio, 10.0, detail)


def smooth_images(count: int, size: int) -> Tensor:
    """Return random images without sharp edges, (N, 3, H, W) uint8, channels last in memory."""
    coarse = torch.randint(0, 256, (count, 3, size // 8, size // 8), generator=torch.Generator().manual_seed(0))
    fine = F.interpolate(coarse.float(), size=(size, size), mode="bicubic").clamp(0, 255)
    return fine.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def training_step(student: str, pixels: Tensor) -> Callable[[], None]:
    """Return a forward and backward pass on a batch."""
    model = build_model(student, 100)
    images, targets = pixels.float() / 255, torch.arange(len(pixels)) % 100

    def step() -> None:
        F.cross_entropy(model(images).logits, targets).backward()

    return step


def timed(work: Callable[[], object], images: int) -> float:
    """Return seconds per image."""
    began = clock()
    work()
    return (clock() - began) / images


if __name__ == "__main__":
    main()
