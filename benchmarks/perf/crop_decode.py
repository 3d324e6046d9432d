"""Bench of decoding random crops, with FFCV's decoder: only the part of a JPEG that a crop needs against all of it.

The same images are stored with restart markers and without. What whole images with markers take is told beside.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.perf.imagenet_sample import missing, write_beton
from benchmarks.perf.measurement import emit, in_turn, ratio_of_pairs, say
from harness.data import beton
from harness.data.load.crops import training_views

PAIRS = 9


def main() -> None:
    if lacks := missing():
        return say(f"crop_decode: skipped, {lacks}")
    import time

    from harness.data.load.ffcv_decoder import _decode_jpeg
    from harness.data.load.jpeg_part import cut

    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, restart in (("marked", 1), ("plain", 0)):
            write_beton(path := Path(folder) / f"{name}.beton", 400, restart)
            files[name] = beton.read_beton(path)
        count = len(files["plain"])
        order, epochs = np.arange(count), iter(range(1_000_000))
        jpegs = {name: [np.array(file.jpeg(i)) for i in order] for name, file in files.items()}
        heights, widths = files["plain"].heights, files["plain"].widths
        pixels, part = np.empty(3 * int((heights * widths).max()), np.uint8), np.empty(beton.PAGE, np.int8)

        def whole(name: str) -> float:
            """Return CPU seconds per image."""
            began = time.process_time()
            for i in order:
                assert not _decode_jpeg(jpegs[name][i], pixels, heights[i], widths[i])
            return (time.process_time() - began) / count

        def crops() -> float:
            views: Any = training_views(0, next(epochs), order, heights, widths).tolist()
            began = time.process_time()
            for i in order:
                top, left, height, width, _ = views[i]
                of_image = jpegs["marked"][i], int(heights[i]), int(widths[i])
                length, _, _, *sides = cut(*of_image, top, left, top + height, left + width, part)
                assert not _decode_jpeg(part[:length] if length else of_image[0], pixels, *sides)
            return (time.process_time() - began) / count

        ways = {"crops": crops, "plain": lambda: whole("plain"), "marked": lambda: whole("marked")}
        for way in ways.values():
            way()  # compile
        seconds = in_turn(ways, PAIRS)
    ratio, spread = ratio_of_pairs(seconds["plain"], seconds["crops"])
    whole_ratio, _ = ratio_of_pairs(seconds["plain"], seconds["marked"])
    detail = {"ms": {name: round(1e3 * min(s), 3) for name, s in seconds.items()}, "whole": round(whole_ratio, 2)}
    emit("crop_decode", ratio, 1.5, {**detail, **spread})


if __name__ == "__main__":
    main()
