#!/usr/bin/env bash
# DeepSpeed 0.19.8 with torch 2.14.1: `deepspeed.initialize` fails on a model that has one parameter without dimensions,
# nn.Parameter(torch.ones(())), at every ZeRO stage and without ZeRO: it sends the weights as bytes, and torch's view as
# bytes needs a dimension. CLIP's temperature (`logit_scale`) is such a parameter, and torch's own
# DistributedDataParallel trains it. The same model with a parameter of shape (1,) starts.
# Seen on a CPU with gloo and one process, Python 3.11: RuntimeError at stages 0 to 3, as in EXPECTED below.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  torch==2.14.1 numpy==2.4.6 setuptools==80.9.0 wheel==0.45.1 deepspeed==0.19.8
cat > "$folder/start.py" <<'PYTHON'
import sys

import deepspeed
import torch
from torch.nn.parallel import DistributedDataParallel

EXPECTED = "self.dim() cannot be 0 to view Float as Byte (different element sizes)"
deepspeed.init_distributed("gloo", rank=0, world_size=1, auto_mpi_discovery=False, verbose=False)


class Scaled(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.scale = torch.nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return self.linear(x) * self.scale


def start(shape, stage):
    model = Scaled(shape)
    config = {
        "train_batch_size": 4,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        deepspeed.initialize(model=model, optimizer=optimiser, config=config)
    except RuntimeError as error:
        return str(error)
    return "started"


loss = DistributedDataParallel(Scaled(()))(torch.ones(4, 3)).square().mean()
loss.backward()
print("DistributedDataParallel: trained", file=sys.stderr)
for shape in ((1,), ()):
    found = [start(shape, stage) for stage in range(4)]
    print(shape, found, file=sys.stderr)
    assert found == (["started"] if shape else [EXPECTED]) * 4
PYTHON
mkdir "$folder/extensions"
cd "$folder"
PATH="$folder/venv/bin:$PATH" TORCH_EXTENSIONS_DIR="$folder/extensions" DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES="" \
  MASTER_ADDR=127.0.0.1 MASTER_PORT=29612 RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 \
  "$folder/venv/bin/python" start.py > "$folder/out" 2> "$folder/log" || { tail -5 "$folder/log"; exit 1; }
grep -E "^Distributed|^\(" "$folder/log"
