#!/usr/bin/env bash
# torch 2.14.1: SGD with momentum and fused=True raises a TypeError as soon as a parameter gets its first gradient after
# another parameter had one, as with a loss that starts at a later epoch or a layer that is unfrozen. The loop over
# parameters (foreach=False) and foreach=True train both, to the same values, and so does AdamW with fused=True.
# The step has failed before anything changes, so that it fails again at every later one.
# Seen on a CPU, Python 3.11: fused: TypeError: expected Tensor as element 1 in argument 2, but got NoneType.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.optim import SGD, AdamW


def train(optimiser_class, **options):
    first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimiser = optimiser_class([first, second], lr=0.1, **options)
    first.grad = torch.ones(2)
    optimiser.step()
    second.grad = torch.ones(2)
    outcomes = []
    for _ in range(2):
        try:
            optimiser.step()
            outcomes.append("trained")
        except TypeError as error:
            outcomes.append(f"TypeError: {error}")
    return outcomes, [first.tolist(), second.tolist()]


loop, loop_values = train(SGD, momentum=0.9, foreach=False)
foreach, foreach_values = train(SGD, momentum=0.9, foreach=True)
fused, fused_values = train(SGD, momentum=0.9, fused=True)
adamw, _ = train(AdamW, fused=True)
print("SGD loop, foreach, fused; AdamW fused:", loop, foreach, fused, adamw, sep="\n  ")
print("values of the loop, of fused:", loop_values, fused_values)
assert loop == foreach == adamw == ["trained"] * 2
assert loop_values == foreach_values
assert fused == ["TypeError: expected Tensor as element 1 in argument 2, but got NoneType"] * 2
once = torch.tensor(1.0) - 0.1  # the first step of the first parameter is all there is
assert fused_values == [[once.item()] * 2, [1.0] * 2]
PYTHON
