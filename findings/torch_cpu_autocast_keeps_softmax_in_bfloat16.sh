#!/usr/bin/env bash
# torch 2.14.1: under `torch.autocast("cpu", torch.bfloat16)` cross_entropy, nll_loss and kl_div compute in float32, but softmax and
# log_softmax stay in bfloat16, unlike what its documentation lists for CUDA. So a distillation loss that is written as KL of softened
# softmaxes inside the autocast block has three digits on a CPU, while the cross-entropy beside it is exact, as it takes the logits.
# Seen on Python 3.11 for logits of 64 images and 100 classes at T = 4: softmax bfloat16, KL off by more than 1 in 2,000; cross_entropy of
# the logits equals that of their float32, bit for bit, and nll_loss of log_softmax does not.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
seen="$(cd "$folder" && "$folder/venv/bin/python" - 2>&1 <<'PYTHON'
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, nll_loss, softmax

torch.manual_seed(0)
student, teacher = (4 * torch.randn(64, 100).bfloat16() for _ in range(2))
labels = torch.randint(100, (64,))
with torch.autocast("cpu", torch.bfloat16):
    soft = softmax(teacher / 4, 1)
    inside = kl_div(log_softmax(student / 4, 1), soft, reduction="batchmean")
    losses = cross_entropy(student, labels), nll_loss(log_softmax(student, 1), labels)
s, t = student.float(), teacher.float()
outside = kl_div(log_softmax(s / 4, 1), softmax(t / 4, 1), reduction="batchmean")
print(
    soft.dtype,
    f"KL {inside.dtype}, " + ("off" if abs(inside / outside - 1) > 5e-4 else "exact"),
    *("exact" if loss == cross_entropy(s, labels) else "off" for loss in losses),
    sep="; ",
)
PYTHON
)"
echo "softmax; KL of softmaxes; cross_entropy; nll_loss of log_softmax: $seen"
test "$seen" = "torch.bfloat16; KL torch.float32, off; exact; off"
