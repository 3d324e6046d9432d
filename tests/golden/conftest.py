"""The golden tests need a folder of reference values; without it they skip."""

from pathlib import Path

import pytest

from tests.support.golden_weights import GOLDEN


@pytest.fixture(scope="session")
def golden() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden folder at {GOLDEN} (set KD_GOLDEN)")
    return GOLDEN
