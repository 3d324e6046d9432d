"""Bench of how the cost of loading ImageNet images grows: an epoch of 100,000 images against one of 1,000.

The images have bytes of their own. Beside: a file of as many images as ImageNet has, which share the bytes of 125;
1, 2 and 4 threads; reading from the disk instead of the page cache; and each process's memory.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.perf.imagenet_sample import missing, stored_images
from benchmarks.perf.measurement import ChildProcess, emit, in_turn, ratio_of_pairs, say
from harness.data import beton

COUNTS, THREADS, PAIRS = (1_000, 10_000, 100_000), (1, 2, 4), 7
SHARED = 1_281_167  # ImageNet's training images
DISK = 6e9  # bytes


class RepeatedImages(beton.Writer):
    """A file in which images stand many times and are stored once."""

    def repeat(self) -> None:
        """List the images so far again, until the file is full."""
        for table in (self._samples, self._rooms):
            table[:] = np.resize(table[: self.count], len(table))
        self._rooms["sample"] = np.arange(len(self._rooms))
        self.count = len(self._rooms)


def main() -> None:
    if lacks := missing():
        return say(f"imagenet_growth: skipped, {lacks}")
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < DISK:
            return say(f"imagenet_growth: skipped, {folder} has less than {DISK / 1e9:.0f} GB free")
        files = {count: Path(folder) / f"{count}.beton" for count in (*COUNTS, SHARED)}
        for count, path in files.items():
            say(f"  writing {count:,} images")
            write(path, count)
        by_count, facts = measured({f"{count:,}": (path, 2) for count, path in files.items()})
        by_threads, _ = measured({f"{threads} threads": (files[COUNTS[1]], threads) for threads in THREADS})
        cold, _ = measured({"disk": (files[COUNTS[2]], 2)}, "cold")
    ratio, spread = ratio_of_pairs(*(by_count[f"{count:,}"] for count in (COUNTS[0], COUNTS[2])))
    detail = {"images_per_s": {k: round(1 / min(s)) for k, s in {**by_count, **by_threads, **cold}.items()}, **facts}
    emit("imagenet_growth", ratio, 0.95, {**detail, **spread})


def write(path: Path, count: int) -> None:
    """Write the images of the sample, as `prepare` stores them, over and over."""
    images = stored_images(400)
    with path.open("wb") as file:
        writer = RepeatedImages(file, count)
        for i in range(len(images) if count == SHARED else count):
            image = images[i % len(images)]
            writer.add(i % len(images), image.height, image.width, image.jpeg)
        if count == SHARED:
            writer.repeat()
        writer.finish()


def measured(sides: dict[str, tuple[Path, int]], order: str = "") -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds per image of files that are read by a number of threads, and what their processes take."""
    processes = {
        name: ChildProcess("-m", "benchmarks.perf.imagenet_epochs", str(path), str(threads))
        for name, (path, threads) in sides.items()
    }
    try:
        seconds = in_turn({name: lambda of=of: of(order) for name, of in processes.items()}, PAIRS, budget_s=120)
    finally:
        for process in processes.values():
            process.close()
    first_lines = {name: json.loads(process.first_line) for name, process in processes.items()}
    return seconds, {
        fact: {k: line[fact] for k, line in first_lines.items()} for fact in ("memory_MB", "first_batch_s")
    }


if __name__ == "__main__":
    main()
