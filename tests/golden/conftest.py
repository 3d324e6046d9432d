"""The folder of reference values for the golden tests, which skip without it."""

from pathlib import Path

import pytest

from tests.support.golden_weights import GOLDEN


@pytest.fixture(scope="session")
def golden() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden folder at {GOLDEN} (set KD_GOLDEN)")
    return GOLDEN
