"""The page on what code does and papers do not say: its effects are those of the golden cases."""

import os
import re

import pytest

from harness.spec.methods import builtin_names
from tests.golden.all_cases import EFFECTS
from tests.support.cli import REPO

ROW = re.compile(r"^\| `(\w+)`(?:: (\w+))? \|.*\| (\S+) → (\S+) \((.*)\) \|$", re.MULTILINE)
ROWS = {
    f"{method}-{topic}" if topic else method: numbers
    for method, topic, *numbers in ROW.findall((REPO / "docs/methods/code-and-paper.md").read_text(encoding="utf-8"))
}


def test_every_row_has_an_effect() -> None:
    assert ROWS.keys() == EFFECTS.keys()
    for key in ROWS:
        assert key.partition("-")[0] in (*builtin_names(), "dot")


@pytest.mark.parametrize("key", EFFECTS)
def test_the_effect_is_that_of_the_case(key: str) -> None:
    measured = EFFECTS[key]()
    *shown, _ = ROWS[key]
    equal = [
        round(value, len(text.partition(".")[2])) == float(text) for value, text in zip(measured, shown, strict=True)
    ]
    if os.environ.get("KD_GOLDEN") and not equal[0]:
        pytest.skip("the golden folder has another case of this id")
    assert all(equal), measured
