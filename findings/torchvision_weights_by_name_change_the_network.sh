#!/usr/bin/env bash
# torchvision 0.29.1 with torch 2.14.1: `inception_v3(weights=IMAGENET1K_V1)` and `googlenet(weights=IMAGENET1K_V1)` are other networks than
# `inception_v3()` and `googlenet()` with the same state dict. Asking for weights by name also switches `transform_input` on, which
# normalises images a second time, inside the network, from ImageNet's mean and std to 0.5 and 0.5. Nothing of it is in the state
# dict: `load_state_dict` answers "All keys matched", and the outputs differ. The weights' own `transforms()` state ImageNet's mean and std.
# A program that builds the network itself and loads the published file feeds it with images of a normalisation that it was not trained for.
# The download is replaced by weights that are drawn here, so that nothing else differs.
# Seen on Python 3.11: for both networks, same keys, transform_input True and False, outputs not close.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
seen="$("$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torchvision import models

torch.manual_seed(0)
images = torch.randn(2, 3, 299, 299)
for build, weights in (
    (models.inception_v3, models.Inception_V3_Weights.IMAGENET1K_V1),
    (models.googlenet, models.GoogLeNet_Weights.IMAGENET1K_V1),
):
    own = build(weights=None, init_weights=False, aux_logits=True)
    type(weights).get_state_dict = lambda *_, **__: own.state_dict()
    by_name, loaded = build(weights=weights, aux_logits=True), build(weights=None, init_weights=False, aux_logits=True)
    keys = loaded.load_state_dict(by_name.state_dict())
    with torch.no_grad():
        outputs = by_name.eval()(images), loaded.eval()(images)
    equal = all(map(torch.equal, by_name.state_dict().values(), loaded.state_dict().values()))
    print(build.__name__, keys, equal, by_name.transform_input, loaded.transform_input, torch.allclose(*outputs, rtol=1e-6, atol=0), weights.transforms().mean)
PYTHON
)"
echo "$seen"
test "$seen" = "inception_v3 <All keys matched successfully> True True False False [0.485, 0.456, 0.406]
googlenet <All keys matched successfully> True True False False [0.485, 0.456, 0.406]"
