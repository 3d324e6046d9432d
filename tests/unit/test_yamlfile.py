"""YAML read with the line of every key; each kind of error gives a message of one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError, one_line, shorten, unknown
from harness.spec import yamlfile

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8).filter(
    lambda text: not yamlfile._FLOAT.match(text)  # PyYAML writes the text 1e3 without quotes
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans())
def test_reads_what_pyyaml_writes(data: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True)
    assert yamlfile.parse_yaml(text, "f.yaml").data == data


def test_every_key_and_item_has_its_line() -> None:
    document = yamlfile.parse_yaml("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "f.yaml")
    assert document.lines == {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4, ("b", 1, "d"): 5}
    assert document.where(("b", 1, "d")) == "f.yaml:5: b.1.d"
    assert document.where(("b", 1, "missing", "deeper")) == "f.yaml:4: b.1.missing.deeper"
    assert document.where(("missing",)) == "f.yaml: missing"
    assert document.where(()) == "f.yaml"


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("5E4", 5e4), ("1.5e+2", 150.0), ("e3", "e3"), ("1e", "1e")])
def test_exponents_are_numbers(text: str, value: object) -> None:
    assert yamlfile.parse_yaml(f"a: {text}", "f.yaml").data == {"a": value}


@pytest.mark.parametrize(
    "text, line, part",
    [
        ("a: 1\na: 2", 2, "'a' is given twice"),
        ("a: 1\n2: 3", 2, "keys must be text, found 2"),
        ("a:\n\t- 1", 2, "not valid YAML"),
        ("a: [1", 1, "not valid YAML"),
        ("a: 1\nb: *x", 2, "undefined alias"),
        ("x: &x\n  [*x]", None, "nested too deeply"),
        ("a: " + "[" * 3000, None, "nested too deeply"),
        ("x: 1\na: 2001-99-99", 2, "'2001-99-99' is not a valid timestamp"),
        ('a: !!int ""', 1, "'' is not a valid int"),
        ("a: !!bool x", 1, "'x' is not a valid bool"),
        ("a: !!timestamp x", 1, "'x' is not a valid timestamp"),
        ('a: "\\UFFFFFFFF"', None, "not valid YAML"),
        ("a: 0x" + "f" * 6000, 1, "too large a number"),
        ("a: " + "9" * 6000, 1, "is not a valid int"),
        ("a: !!set {b}", 1, "is not supported"),
        ("a: !!python/object/apply:os.system [x]", 1, "is not supported"),
        ("a: !!python/name:os.system", 1, "could not determine a constructor"),
        ("a: \x07", None, "not valid YAML"),
        ("- 1", None, "expected a mapping of keys to values, found list"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", None, "not valid YAML"),
    ],
)
def test_wrong_text_is_one_message_with_its_line(text: str, line: int | None, part: str) -> None:
    with pytest.raises(UserError) as e:
        yamlfile.parse_yaml(text, "f.yaml")
    assert str(e.value).startswith(f"f.yaml:{line}: " if line else "f.yaml: ")
    assert part in str(e.value)
    assert len(str(e.value)) < 250


def test_a_billion_laughs_are_refused() -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(UserError, match="expands to more than"):
        yamlfile.parse_yaml("\n".join(lines), "f.yaml")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"note: caf\xe9")
    for name, part in (("none.yaml", "no such file"), (".", "is a folder"), ("latin.yaml", "not UTF-8 text (byte 9)")):
        with pytest.raises(UserError) as e:
            yamlfile.read_yaml(tmp_path / name)
        assert part in str(e.value) and str(tmp_path) in str(e.value)


def test_a_misspelt_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "digits_pairs.yaml").touch()
    with pytest.raises(UserError, match="digit_pairs.yaml: no such file; did you mean .*/digits_pairs.yaml"):
        yamlfile.read_yaml(tmp_path / "digit_pairs.yaml")


@given(st.text())
def test_a_message_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() and len(line) <= 2000
    assert line == text or not text.isprintable() or len(text) > 2000


def test_the_nearest_name_is_given() -> None:
    assert unknown("method", "kdd", ["crd", "kd"]) == "unknown method 'kdd'; did you mean 'kd'? Valid: crd, kd"
    assert unknown("method", "zzz", ["crd", "kd"]) == "unknown method 'zzz'. Valid: crd, kd"
    assert unknown("method", "kd", []) == "unknown method 'kd': there are none here"
    assert len(unknown("x", "y" * 10_000, map(str, range(1000)))) < 300
    assert shorten(10**5000) == "a huge int"
