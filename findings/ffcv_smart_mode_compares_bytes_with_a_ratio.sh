#!/usr/bin/env bash
# ffcv 1.0.2: `RGBImageField(write_mode="smart")` is documented to store a JPEG where the pixels would take more than `smart_threshold` times as much room.
# Without a threshold, its default, it stores pixels always, though it encodes every image as a JPEG first; with one, it compares the number of bytes of the
# pixels with it: smart_threshold=10 stores a JPEG of an 8x8 image, whose pixels take 192 bytes, although the JPEG is the larger of the two.
# So a dataset that was written with "smart" and no more takes ten times the expected disk. Nothing is said either way.
# Needs a compiler, libopencv-dev and libturbojpeg0-dev, which building ffcv takes.
set -euo pipefail
pkg-config --exists opencv4 libturbojpeg || apt-get install -qq -y g++ pkg-config libopencv-dev libturbojpeg0-dev > /dev/null
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python==5.0.0.93 numba==0.68.1 torch==2.13.0 pillow==13.0.0 setuptools==84.2.1 wheel
"$folder/venv/bin/pip" install --quiet --no-build-isolation ffcv==1.0.2
cat > "$folder/modes.py" <<'PY'
import io
import os
import sys

import cv2
import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter


class Images:
    def __init__(self, side):
        self.image = np.full((side, side, 3), 128, np.uint8)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.image, i


def modes(side, **threshold):
    path = os.path.join(sys.argv[1], f"{side}{threshold}.beton")
    field = RGBImageField(write_mode="smart", **threshold)
    DatasetWriter(path, {"image": field, "label": IntField()}, num_workers=1).from_indexed_dataset(Images(side))
    kinds = {{0: "jpg", 1: "raw"}[int(mode)] for mode in Reader(path).metadata["f0"]["mode"]}
    return " ".join(sorted(kinds))


def jpeg_bytes(side):
    return len(cv2.imencode(".jpg", Images(side).image)[1])


assert jpeg_bytes(256) * 50 < 256 * 256 * 3, "the pixels take 50 times as much"
assert jpeg_bytes(8) > 8 * 8 * 3, "the JPEG is the larger"
print(f"256x256: {modes(256)}; 8x8, threshold 10: {modes(8, smart_threshold=10)}")
PY
seen="$("$folder/venv/bin/python" "$folder/modes.py" "$folder" 2> "$folder/errors" | tail -1)" || { tail -5 "$folder/errors"; exit 1; }
echo "what smart stores: $seen"
test "$seen" = "256x256: raw; 8x8, threshold 10: jpg"
