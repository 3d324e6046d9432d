#!/usr/bin/env bash
# timm 1.0.31 with torch 2.14.1: `create_model` takes constructor arguments as keywords, but the token mixers' entry points pass some of
# their own beside them: mixer_s16_224, resmlp_12_224 and gmlp_s16_224 raise TypeError ("got multiple values for keyword argument") for
# `patch_size` and `num_blocks`, which vit_tiny_patch16_224, deit_tiny_patch16_224 and convnext_tiny take (`patch_size`).
# So a grid over patch sizes that works for ViT fails for the Mixer with the same call, before any weight is made.
# Seen on Python 3.11: three models, two arguments each, TypeError; `img_size` is taken by all three mixers; the three others build.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 timm==1.0.31
seen="$(cd "$folder" && "$folder/venv/bin/python" - 2>&1 <<'PYTHON'
import timm


def build(name, **arguments):
    try:
        timm.create_model(name, num_classes=10, **arguments)
    except TypeError as error:
        return "refused" if "multiple values for keyword argument" in str(error) else f"other: {error}"
    return "built"


MIXERS = ("mixer_s16_224", "resmlp_12_224", "gmlp_s16_224")
OTHERS = ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "convnext_tiny")
print(
    *(build(name, patch_size=8) for name in MIXERS),
    *(build(name, num_blocks=2) for name in MIXERS),
    *(build(name, img_size=32) for name in MIXERS),
    *(build(name, patch_size=2) for name in OTHERS),
)
PYTHON
)"
echo "patch_size, num_blocks and img_size of three mixers; patch_size of three other models: $seen"
test "$seen" = "refused refused refused refused refused refused built built built built built built"
