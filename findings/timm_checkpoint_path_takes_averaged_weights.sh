#!/usr/bin/env bash
# timm 1.0.31 with torch 2.14.1: `create_model(..., checkpoint_path=FILE)` and `load_checkpoint(model, FILE)` take the moving averages
# (`state_dict_ema`) of a training checkpoint that holds both, without a word; the network that was trained (`state_dict`) is passed over.
# With averages from few steps, which are still near the random start, a good network measures like an untrained one.
# torch's `load_state_dict` of the same file's `state_dict` gives the other network, so two programs that load "the checkpoint" differ.
# Seen on Python 3.11: weights of the average, by both functions, nothing printed and no warning; the network's own with use_ema=False only.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 timm==1.0.31
seen="$(cd "$folder" && "$folder/venv/bin/python" -W error::UserWarning - 2>&1 <<'PYTHON'
import timm
import torch
from timm.models import load_checkpoint

torch.manual_seed(0)
trained = timm.create_model("test_resnet", num_classes=10).state_dict()
averaged = {key: value + 1 for key, value in trained.items()}
torch.save({"arch": "test_resnet", "epoch": 3, "state_dict": trained, "state_dict_ema": averaged}, "last.pth.tar")


def taken(network):
    bias = network.state_dict()["fc.bias"]
    return "averaged" if torch.equal(bias, averaged["fc.bias"]) else "trained" if torch.equal(bias, trained["fc.bias"]) else "?"


by_path = timm.create_model("test_resnet", num_classes=10, checkpoint_path="last.pth.tar")
loaded, without = (timm.create_model("test_resnet", num_classes=10) for _ in range(2))
load_checkpoint(loaded, "last.pth.tar")
load_checkpoint(without, "last.pth.tar", use_ema=False)
print(taken(by_path), taken(loaded), taken(without))
PYTHON
)"
echo "create_model, load_checkpoint, load_checkpoint without EMA: $seen"
test "$seen" = "averaged averaged trained"
