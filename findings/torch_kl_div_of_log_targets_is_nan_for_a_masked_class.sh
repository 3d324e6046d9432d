#!/usr/bin/env bash
# torch 2.14.1: `F.kl_div` has two forms of the same number, and only one knows that 0 log 0 is 0. A teacher whose logits hide a class with
# -inf (as methods that leave out the target or the classes above it do) has probability 0 and log-probability -inf there.
# kl_div(student, probabilities) is finite; kl_div(student, log_probabilities, log_target=True), the form recommended for stability, is NaN.
# The student's gradient is finite and the same in both (to 1e-7): training goes on, and only the logged loss is NaN (or a guard ends it).
# With the class hidden by -1e9 instead, both forms are finite. It is the same for every reduction.
# Seen on Python 3.11: finite, nan, equal gradients, for "none" summed, "sum", "mean" and "batchmean".
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
seen="$(cd "$folder" && "$folder/venv/bin/python" -W ignore - 2>&1 <<'PYTHON'
import torch
import torch.nn.functional as F

teacher = torch.tensor([[1.0, 2.0, -torch.inf], [0.5, -torch.inf, 3.0]])
far = teacher.clamp(min=-1e9)


def loss_and_gradient(logits, log_target, reduction):
    student = torch.tensor([[1.0, 1.5, 0.3], [0.2, 0.1, 2.0]], requires_grad=True)
    target = logits.log_softmax(1) if log_target else logits.softmax(1)
    loss = F.kl_div(student.log_softmax(1), target, reduction=reduction, log_target=log_target).sum()
    loss.backward()
    return loss.detach(), student.grad


for reduction in ("none", "sum", "mean", "batchmean"):
    plain, of_plain = loss_and_gradient(teacher, False, reduction)
    logs, of_logs = loss_and_gradient(teacher, True, reduction)
    masked, _ = loss_and_gradient(far, True, reduction)
    same = bool(of_logs.isfinite().all()) and torch.allclose(of_plain, of_logs, rtol=0, atol=1e-7)
    print("finite" if plain.isfinite() else "nan", "nan" if logs.isnan() else "finite", "same gradients" if same else "others",
          "finite with -1e9" if torch.allclose(masked, plain) else "other", sep=", ", end="; ")
PYTHON
)"
echo "kl_div of probabilities, of log-probabilities, gradients, -1e9: $seen"
one="finite, nan, same gradients, finite with -1e9; "
test "$seen" = "${one}${one}${one}${one}"
