"""The number of members that train at once on a GPU."""

from hypothesis import given
from hypothesis import strategies as st

from harness.training.cuda.memory import fits_another

TOTAL = 80_000_000_000
percents = st.integers(1, 100).map(lambda n: n * TOTAL // 100)


@given(st.lists(percents, min_size=1, max_size=40), percents)
def test_members_that_may_begin_fit(needs: list[int], others: int) -> None:
    """Members that need no more than the first fit, together with an eager step and what other programs hold."""
    needs = [min(need, needs[0]) for need in needs]
    held: list[int] = []
    for need in needs:
        if not fits_another(TOTAL - others - sum(held), TOTAL, held):
            break
        held.append(need)
    assert held, "at least one trains"
    if len(held) > 1:
        assert others + sum(held) + max(held) + TOTAL // 20 <= TOTAL
    if len(held) < len(needs):  # no member waits if the memory is clearly sufficient
        assert others + sum(held) + 2 * needs[0] + TOTAL // 20 > TOTAL


def test_eight_small_students_train_at_once() -> None:
    assert all(fits_another(TOTAL - n * 2**30, TOTAL, [2**30] * n) for n in range(8))
