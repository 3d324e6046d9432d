"""How many members train at once on a GPU."""

from hypothesis import given
from hypothesis import strategies as st

from harness.training.cuda.memory import fits_another

TOTAL = 80_000_000_000
hundredths = st.integers(1, 100).map(lambda n: n * TOTAL // 100)


@given(st.lists(hundredths, min_size=1, max_size=40), hundredths)
def test_whoever_is_let_in_fits(needs: list[int], others: int) -> None:
    """Members no greedier than the first: all that train, one step beside their graphs, and what others hold."""
    needs = [min(need, needs[0]) for need in needs]
    held: list[int] = []
    for need in needs:
        if not fits_another(TOTAL - others - sum(held), TOTAL, held):
            break
        held.append(need)
    assert held, "one at least"
    if len(held) > 1:
        assert others + sum(held) + max(held) + TOTAL // 20 <= TOTAL
    if len(held) < len(needs):  # and none is kept waiting that had plenty of room
        assert others + sum(held) + 2 * needs[0] + TOTAL // 20 > TOTAL


def test_eight_small_students_go_together() -> None:
    assert all(fits_another(TOTAL - n * 2**30, TOTAL, [2**30] * n) for n in range(8))
