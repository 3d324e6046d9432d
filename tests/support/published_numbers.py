"""Rows of published numbers, collected and committed."""

import csv
import io

from benchmarks.published import build
from harness.reporting.published import numbers as published_numbers

CRD, MDISTILLER = "CRD (RepDistiller README.md @b84f547)", "DKD/DOT (mdistiller README.md @a08d46f)"


def number(**more: str) -> dict[str, str]:
    """Return a row of the collection."""
    row = dict.fromkeys(build.COLUMNS, "") | {
        "benchmark": "cifar100_same", "dataset": "CIFAR-100", "teacher": "resnet56", "student": "resnet20",
        "method": "KD", "metric": "top1", "value": "70.66", "epochs": "240", "source": CRD,
    }  # fmt: skip
    return row | more


def built(*rows: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {name: list(csv.DictReader(io.StringIO(text))) for name, text in build.build_files(rows).items()}


def committed(name: str) -> list[dict[str, str]]:
    with (published_numbers.FOLDER / name).open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))
