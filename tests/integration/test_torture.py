"""A minute of `make torture`: kills, flipped bits, errors of the file system, several users and jumping clocks."""

import pytest

from tests.torture.__main__ import PARTS, run_part


@pytest.mark.parametrize("part", PARTS)
def test_twelve_seconds_lose_nothing(part: str) -> None:
    result = run_part(part, 60 / len(PARTS), seed=0)
    assert not result["lost"], result["what"]
