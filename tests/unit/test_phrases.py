"""Counts and lists in messages."""

from harness.phrases import percent, plural, some


def test_one_is_singular() -> None:
    assert [plural(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert plural(2, "entry", "entries") == "2 entries"


def test_the_rest_of_a_long_list_is_counted() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some({"a": 1, "b": 2, "c": 3}, shown=2) == "a, b and 1 more"


def test_a_score_that_nothing_defines_is_named() -> None:
    assert [percent(71.976), percent(0.0), percent(None)] == ["71.98 %", "0.00 %", "not measurable"]
