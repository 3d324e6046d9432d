#!/usr/bin/env bash
# ffcv 1.0.2 with numba 0.68.1: most of the seconds that `import ffcv` takes go into two lines that put "jpg" and "raw" into a dictionary of numba's,
# which compiles the dictionary's functions for it, anew in every process, as numba keeps none of them on disk. The lines' only readers are plain Python.
# With Python's own dictionary in its place the same import takes 0.06 CPU seconds instead of 2.97, numba, OpenCV and torch being imported before in both cases.
# Needs a compiler, libopencv-dev and libturbojpeg0-dev, which building ffcv takes.
set -euo pipefail
pkg-config --exists opencv4 libturbojpeg || apt-get install -qq -y g++ pkg-config libopencv-dev libturbojpeg0-dev > /dev/null
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python==5.0.0.93 numba==0.68.1 torch==2.13.0 pillow==13.0.0 setuptools==84.2.1 wheel
"$folder/venv/bin/pip" install --quiet --no-build-isolation ffcv==1.0.2
cat > "$folder/import.py" <<'PY'
import sys
import time

import cv2, numba.typed, PIL.Image, torch  # noqa: E401

if sys.argv[1] == "plain":
    numba.typed.Dict = dict
began = time.process_time()
from ffcv.fields.rgb_image import IMAGE_MODES  # noqa: E402

print(time.process_time() - began, len(IMAGE_MODES))
PY
"$folder/venv/bin/python" "$folder/import.py" plain > "$folder/errors" 2>&1 || { tail -5 "$folder/errors"; exit 1; }  # and writes bytecode
for kind in numba plain; do
  for _ in 1 2 3; do "$folder/venv/bin/python" "$folder/import.py" "$kind" 2> /dev/null; done | sort -n | head -1 > "$folder/$kind"
  echo "CPU seconds and entries, $kind: $(cat "$folder/$kind")"
done
awk 'NR == FNR { slow = $1; next } { exit !(slow > 3 * $1) }' "$folder/numba" "$folder/plain"
