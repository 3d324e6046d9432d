"""Counts and lists in messages, and names of files."""

import pytest

from harness.phrases import file_name, percent, plural, some


def test_one_is_singular() -> None:
    assert [plural(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert plural(2, "entry", "entries") == "2 entries"


def test_the_rest_of_a_long_list_is_counted() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some({"a": 1, "b": 2, "c": 3}, shown=2) == "a, b and 1 more"


def test_a_score_that_nothing_defines_is_named() -> None:
    assert [percent(71.976), percent(0.0), percent(None)] == ["71.98 %", "0.00 %", "not measurable"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("pareto", "timm:resnet18.a1_in1k", "wrn-40-2"), "pareto_timm_resnet18.a1_in1k_wrn-40-2"),
        (("..",), "_."),
        ((".hidden",), "_hidden"),
        (("../../evil",), "_._.._evil"),
        (("/evil",), "_evil"),
        (("a\\b\0\n\u202e",), "a_b___"),
        (("",), "_"),
        (("e" * 300,), "e" * 111 + "-a5d39ce9"),
    ],
)
def test_a_files_name_is_one_part_of_a_path(parts: tuple[str, ...], expected: str) -> None:
    assert file_name(*parts) == expected


def test_long_names_differ_in_their_hash() -> None:
    names = {file_name("é" * 200 + end) for end in "ab"}
    assert len(names) == 2 and all(len(name.encode()) <= 120 for name in names)
