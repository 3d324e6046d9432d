#!/usr/bin/env bash
# torch 2.14.1: a Python number divided by a float32 tensor is not the correctly rounded quotient. `255.0 / x` gives the bits
# of `x.reciprocal() * 255.0`, which rounds twice, for 46 of the 255 whole numbers; a tensor full of 255.0 divided by x gives
# IEEE 754's quotient, and so does NumPy. So moving a constant into a tensor changes bits, and 255 / 255 levels of a pixel
# table come out as 254.99998.
# Seen on a CPU, Python 3.11: 255.0 / 7 is 36.42857360839844, the quotient 36.42856979370117.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy
import torch

x = torch.arange(1, 256, dtype=torch.float32)
by_number, by_tensor = 255.0 / x, torch.full_like(x, 255.0) / x
different = by_number != by_tensor
print(f"{int(different.sum())} of {len(x)} differ; 255.0 / 7: {by_number[6].item()}, by a tensor: {by_tensor[6].item()}")
assert int(different.sum()) == 46
assert torch.equal(by_number, x.reciprocal() * 255.0)
assert numpy.array_equal(by_tensor.numpy(), numpy.float32(255) / x.numpy())
PYTHON
