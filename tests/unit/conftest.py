"""Fixtures of the unit tests."""

from collections.abc import Iterator

import pytest

from tests.support.repeated_draws import repeated_draws


@pytest.fixture(scope="module")
def quickly_built() -> Iterator[None]:
    """Build networks quickly, with weights that repeat, in all tests of a file."""
    with repeated_draws():
        yield
