#!/usr/bin/env bash
# ffcv 1.0.2, on Debian's libturbojpeg 2.1.5: every JPEG is decoded with TurboJPEG's fast DCT, of less precision than what Pillow, OpenCV and torchvision use.
# Nothing says so, and no option changes it. On images of smooth noise and quality 90, two thirds of all values differ, by up to 6 of 255 levels,
# while the decoders of Pillow and of OpenCV, which share the default DCT, agree in every bit with each other. So a model that is trained with FFCV's loader
# and evaluated with another sees other pixels, whatever is done about crops and resizing; accuracies of the two are not of one protocol.
# Needs a compiler, libopencv-dev and libturbojpeg0-dev, which building ffcv takes.
set -euo pipefail
pkg-config --exists opencv4 libturbojpeg || apt-get install -qq -y g++ pkg-config libopencv-dev libturbojpeg0-dev > /dev/null
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python==5.0.0.93 numba==0.68.1 torch==2.13.0 pillow==13.0.0 setuptools==84.2.1 wheel
"$folder/venv/bin/pip" install --quiet --no-build-isolation ffcv==1.0.2
cat > "$folder/decode.py" <<'PY'
import io

import cv2
import numpy as np
from ffcv.libffcv import imdecode
from PIL import Image

shares, most = [], 0
for seed in range(20):
    rng = np.random.default_rng(seed)
    steps = rng.integers(-12, 13, (200, 240, 3))
    image = ((np.cumsum(steps, 0) + np.cumsum(steps, 1)) % 200 + 20).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=90)
    jpeg = np.frombuffer(out.getvalue(), np.uint8)
    by_ffcv = np.empty_like(image)
    assert imdecode(jpeg, by_ffcv, 200, 240, 200, 240, 0, 0, 1, 1, False, False) == 0
    by_pillow = np.asarray(Image.open(io.BytesIO(jpeg.tobytes())))
    by_opencv = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(by_pillow, by_opencv)
    apart = np.abs(by_ffcv.astype(int) - by_pillow)
    shares.append((apart > 0).mean())
    most = max(most, int(apart.max()))
print(f"least and greatest share that differs: {min(shares):.2f} {max(shares):.2f}, by at most {most}", flush=True)
print("differs" if min(shares) > 0.1 and most >= 3 else "agrees")
PY
"$folder/venv/bin/python" "$folder/decode.py" > "$folder/seen" 2> "$folder/errors" || { tail -5 "$folder/errors"; exit 1; }
cat "$folder/seen"
test "$(tail -1 "$folder/seen")" = differs
