"""The place of the first difference between a file and what the records give."""

from pathlib import Path

from harness.verify import _first_difference

LINE = "a" * 40 + "3" + "b" * 40


def difference(folder: Path, old: str | None, new: str | None, name: str = "table.md") -> str | None:
    for part, content in (("old", old), ("new", new)):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / name).unlink(missing_ok=True)
        if content is not None:
            (folder / part / name).write_text(content)
    return _first_difference(folder / "old" / name, folder / "new" / name)


def test_the_line_and_what_is_around_the_difference_are_shown(tmp_path: Path) -> None:
    changed = LINE.replace("3", "4")
    shown, rebuilt = ("a" * 30 + digit + "b" * 29 for digit in "34")
    expected = f"line 2: {shown!r}, rebuilt {rebuilt!r}"
    assert difference(tmp_path, f"one\n{LINE}\n", f"one\n{changed}\n") == expected
    assert difference(tmp_path, "one\nt2\n", "one\nt3\n") == "line 2: 't2\\n', rebuilt 't3\\n'"
    assert difference(tmp_path, "same", "same") is None


def test_other_differences(tmp_path: Path) -> None:
    assert difference(tmp_path, "abc", "abd", "records.parquet") == "differs at byte 2"
    assert difference(tmp_path, None, "a") == "is missing"
    assert difference(tmp_path, "a", None) == "is not among the files that the records give"
