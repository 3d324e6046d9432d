"""Bench of reproducible crops: our decoder in FFCV's loader against FFCV's own random decoder and flip, on one file."""

import tempfile
from pathlib import Path

from benchmarks.perf.cifar import BUSY, CLOCK, clock
from benchmarks.perf.imagenet_sample import BATCH, SIZE, missing, write_beton
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs, say
from harness import rng
from harness.data import beton
from harness.data.load.crops import as_views, training_views

PAIRS = 9


def main(side: int = 400, target: float = 2.0, bench: str = "seeded_decoder") -> None:
    if lacks := missing():
        return say(f"{bench}: skipped, {lacks}")
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    from harness.data.load.ffcv_decoder import FfcvImages
    from harness.data.load.prefetch import AHEAD

    workers = 1 if BUSY else 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.beton"
        write_beton(path, side)
        file, seeded = beton.read_beton(path), FfcvImages(path, workers)
        own = Loader(
            str(path), batch_size=BATCH, num_workers=workers, os_cache=True, order=OrderOption.RANDOM, drop_last=False,
            batches_ahead=AHEAD,
            pipelines={
                "image": [RandomResizedCropRGBImageDecoder((SIZE, SIZE)), RandomHorizontalFlip(), ToTensor()],
                "label": None,
                "index": None,
            },
        )  # fmt: skip
        epochs = iter(range(1_000_000))

        def ours() -> float:
            """Return seconds per image over a whole epoch, with drawing its order and crops."""
            began, epoch = clock(), next(epochs)
            order = rng.random_permutation(0, epoch, len(file)).numpy()
            parts = training_views(0, epoch, order, file.heights[order], file.widths[order])
            count = sum(len(images) for images in seeded.batches(as_views(order, parts, SIZE), BATCH, SIZE))
            return (clock() - began) / count

        def theirs() -> float:
            began = clock()
            count = sum(len(images) for (images,) in own)
            return (clock() - began) / count

        ours(), theirs()  # compile
        seconds = in_turn({"ours": ours, "ffcv": theirs}, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["ffcv"], seconds["ours"])
    detail = {
        "images_per_s": {name: round(1 / min(s)) for name, s in seconds.items()},
        "max_side": side,
        "workers": workers,
        "clock": CLOCK,
        **spread,
    }
    emit(bench, ratio, target, detail)


if __name__ == "__main__":
    main()
