"""The page on what code does and papers do not say: its effects are those of the golden cases."""

import re

import pytest

from harness.spec.methods import builtin_names
from tests.golden import (
    contrast_and_detector_cases,
    logit_cases,
    map_cases,
    optimizer_cases,
    refined_logit_cases,
    transport_cases,
)
from tests.golden.cases import INDEXES
from tests.support.cli import REPO

MODULES = (
    contrast_and_detector_cases, logit_cases, map_cases, optimizer_cases, refined_logit_cases, transport_cases
)  # fmt: skip
EFFECTS = {key: effect for module in MODULES for key, effect in module.EFFECTS.items()}
ROW = re.compile(r"^\| `(\w+)`(?:: (\w+))? \|.*\| (\S+) → (\S+) \((.*)\) \|$", re.MULTILINE)


@pytest.mark.skipif(not INDEXES, reason="no golden losses (set KD_GOLDEN)")
def test_the_effects_are_those_of_the_cases() -> None:
    page = (REPO / "docs/methods/code-and-paper.md").read_text(encoding="utf-8")
    rows = {f"{method}-{topic}" if topic else method: numbers for method, topic, *numbers in ROW.findall(page)}
    assert rows.keys() == EFFECTS.keys()
    for key, (code, other, _) in rows.items():
        measured = EFFECTS[key]()
        for shown, value in zip((code, other), measured, strict=True):
            digits = len(shown.partition(".")[2])
            assert round(value, digits) == float(shown), f"{key}: {measured}"
        assert key.partition("-")[0] in (*builtin_names(), "dot")
