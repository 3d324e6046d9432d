"""Compare our methods with every loss case of the golden folder: losses, gradients, outputs and state."""

from pathlib import Path

import pytest

from tests.golden.all_cases import ADAPTERS
from tests.golden.cases import Case, assert_equal, read_arrays, read_cases
from tests.support.golden_weights import GOLDEN

CASES = read_cases()


@pytest.mark.skipif(not CASES, reason=f"no golden losses at {GOLDEN} (set KD_GOLDEN)")
@pytest.mark.parametrize(("folder", "case"), CASES, ids=[case["id"] for _, case in CASES])
def test_matches_the_reference(folder: Path, case: Case) -> None:
    given, expected = read_arrays(folder, case)
    assert case["method"] in ADAPTERS, f"{case['id']}: no method {case['method']!r}; there are {', '.join(ADAPTERS)}"
    assert_equal(case, ADAPTERS[case["method"]](case, given), expected)
