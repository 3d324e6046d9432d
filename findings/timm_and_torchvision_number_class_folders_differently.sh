#!/usr/bin/env bash
# timm 1.0.31 and torchvision 0.29.1: the same class folders get other labels. torchvision's ImageFolder sorts the names by their characters,
# timm's readers of folders and tars sort numbers in names by value and take no notice of case. So a model that was trained from
# folders "1", "2", ..., "10" by one of them and is evaluated through the other has wrong classes without any error; names with
# leading zeros and equal case, such as ImageNet's, agree.
# Seen on Python 3.11 for the folders 1 10 2 ant Wolf: torchvision numbers 1 10 2 Wolf ant, timm 1 2 10 ant Wolf; for n01 n02 n10 both agree.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 timm==1.0.31
seen="$(cd "$folder" && "$folder/venv/bin/python" - 2>&1 <<'PYTHON'
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder


def orders(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name / "image.png")
    theirs = ImageFolder(root).class_to_idx, create_dataset("", str(root)).reader.class_to_idx
    return [" ".join(sorted(numbers, key=numbers.__getitem__)) for numbers in theirs]


print(*orders(Path("mixed"), ("1", "10", "2", "ant", "Wolf")), *orders(Path("padded"), ("n01", "n02", "n10")), sep="; ")
PYTHON
)"
echo "torchvision's and timm's order of five folders, then of three: $seen"
test "$seen" = "1 10 2 Wolf ant; 1 2 10 ant Wolf; n01 n02 n10; n01 n02 n10"
