#!/usr/bin/env bash
# torchvision 0.29.1 with torch 2.14.1: `import torch` leaves torch's compiler (torch._dynamo) out, but `import torchvision`
# imports it, because torchvision.ops.roi_align asks at its top whether compiling is supported. Nothing is compiled.
# Every process that only wants a network, a transform or a box operation pays for it with more than 1,000 modules, about as much
# CPU time as `import torch` itself takes.
# Seen on Python 3.11: False after importing torch, True after importing torchvision.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
seen="$("$folder/venv/bin/python" - <<'PYTHON'
import sys
import torch
after_torch, modules = "torch._dynamo" in sys.modules, len(sys.modules)
import torchvision
print(after_torch, "torch._dynamo" in sys.modules)
print(len(sys.modules) - modules, "more modules", file=sys.stderr)
PYTHON
)"
echo "torch._dynamo imported after torch, after torchvision: $seen"
test "$seen" = "False True"
