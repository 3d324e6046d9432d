"""YAML read with the line of every key; each kind of error gives a message of one line."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError, one_line, shorten, unknown
from harness.spec import yaml_scalars, yamlfile

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8).filter(
    # PyYAML writes the texts 1e3 and –5 without quotes.
    lambda text: yaml_scalars.kind(text) == "str" and not yaml_scalars.misread(text)
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


def test_a_file_of_more_than_500_kb_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("a: 1\r\n#" + "x" * (yamlfile.MAX_BYTES - 7))
    assert yamlfile.read_yaml(file).data == {"a": 1}
    file.write_text("a: [1\n" + "#" * yamlfile.MAX_BYTES)
    for endless in (file, Path("/dev/zero")):
        with pytest.raises(UserError, match=f"^{endless}: larger than 500 kB, the most that is read of a YAML file$"):
            yamlfile.read_yaml(endless)


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
        ("x: 1\na: 2001-99-99", 2, "a: 2001-99-99 is a date in YAML 1.1"),
        ('a: !!int ""', 1, "tag !!int is not supported"),
        ("a: !!timestamp x", 1, "tag !!timestamp is not supported"),
        ("a: !mine x", 1, "tag !mine is not supported"),
        ('a: "\\UFFFFFFFF"', None, "not valid YAML"),
        ("a: 0x" + "f" * 6000, 1, "too large a number"),
        ("a: " + "9" * 6000, 1, "is not a valid int"),
        ("a: !!set {b}", 1, "is not supported"),
        ("a: !!python/object/apply:os.system [x]", 1, "is not supported"),
        ("a: !!python/name:os.system", 1, "tag !!python/name:os.system is not supported"),
        ("a:\n\tb: 1", 2, "a tab; write spaces"),
        ("a:\n\u00a0- {b: 1, c: 2}", 2, "not allowed here; is a line indented too far"),
        ("a:\n\u00a0- {b: 1, c: 2}", 2, "; line 2 has characters that only look like others or like nothing (U+00A0)"),
        ("a: 1\nb:2", 2, "keys are written `key: value`, with a space after the colon"),
        ("a: 1\n---\nb: 2", 2, "found another document; a file holds one"),
        ("a: 1\n<<<<<<< HEAD\nb: 1", 2, "line 2 begins a conflict that git could not merge"),
        ("a: *, b", 1, "quote a text that begins with *"),
        ('a = "x"', None, "found text; write `key: value`, not `key = value`"),
        ("~", None, "expected a mapping of keys to values, found nothing"),
        ("x: &x 1\na: {<<: *x}", 2, "a: '<<' merges the keys of mappings"),
        ("a: {lr: 0,05}", 1, "a: keys must be text, found 05 after lr; a decimal comma? write 0.05"),
        ("a: {epochs: 1,000}", 1, "found 000 after epochs; a comma in a number? write 1000 or 1.000"),
        ("a: 1\ntrue: 1", 2, "keys must be text, found true; quote it: 'true'"),
        ("a: &a {<<: *a}", None, "nested too deeply"),
        ("a: {<<: [1]}", 1, "a: '<<' merges the keys of mappings"),
        ("x: &x {b: 1}\na: {<<: *x, <<: *x}", 2, "a: '<<' is given twice; merge several mappings by a list"),
        ("a: 1\nb: \x07", 2, "not valid YAML: the character U+0007 is not allowed"),
        ("- 1", None, "expected a mapping of keys to values, found a list"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", None, "not valid YAML"),
    ],
)
def test_wrong_text_is_one_message_with_its_line(text: str, line: int | None, part: str) -> None:
    with pytest.raises(UserError) as e:
        yamlfile.parse_yaml(text, "f.yaml")
    assert str(e.value).startswith(f"f.yaml:{line}: " if line else "f.yaml: ")
    assert part in str(e.value)
    assert len(str(e.value)) < 300


@pytest.mark.parametrize(
    "text, part",
    [
        ("1:30:00", "is the number 5400 in YAML 1.1 and text in YAML 1.2; quote it for the text: '1:30:00'"),
        ("190:20:30.15", "quote it for the text: '190:20:30.15'"),
        ("010", "starts with a zero, which YAML 1.1 reads as octal; write 10 for the number, or quote it for the text"),
        ("-007", "write -7 for the number, or quote it for the text: '-007'"),
        ("1_000", "is the number 1000 in YAML 1.1 and text in YAML 1.2; write 1000 for the number, or quote it"),
        ("0b11", "write 3 for the number, or quote it for the text: '0b11'"),
        ("2026-12-01", "is a date in YAML 1.1 and text in YAML 1.2; quote it for the text: '2026-12-01'"),
        ("No", "is false in YAML 1.1 and text in YAML 1.2; write false, or quote it for the text: 'No'"),
        ("=", "quote it for the text: '='"),
        ("<<", "is a merge key in YAML 1.1"),
        ("\u22120.1", "(U+2212); type it again: -0.1"),
        ("0\u20134", "(U+2013); type it again: 0-4"),
        ("\u201ckd\u201d", '(U+201C, U+201D); type it again: "kd"'),
        ("k\u200bd", "(U+200B); type it again: kd"),
        ("kd\u00a0", "(U+00A0); type it again: kd"),
    ],
)
def test_a_value_that_readers_take_for_different_things_is_refused(text: str, part: str) -> None:
    with pytest.raises(UserError) as e:
        yamlfile.parse_yaml(f"x: 1\na: [1, {text}]", "f.yaml")
    assert str(e.value).startswith(f"f.yaml:2: a.1: {text} ") and part in str(e.value)
    with pytest.raises(UserError, match=r"^f\.yaml:1: "):
        yamlfile.parse_yaml(f"{text} : 1", "f.yaml")
    assert yamlfile.parse_yaml(f"a: '{text}'", "f.yaml").data == {"a": text}


@pytest.mark.parametrize(
    "text, value",
    [("0o17", 15), ("0x10", 16), ("-.5", -0.5), ("1e3", 1000.0), ("True", True), ("~", None), ("y", "y"),
     (".inf", float("inf")), ("!!str 010", "010"), ("1.2.3", "1.2.3"), ("it\u2019s 3\u20134", "it\u2019s 3\u20134")],
)  # fmt: skip
def test_what_readers_agree_on_is_read(text: str, value: object) -> None:
    assert yamlfile.parse_yaml(f"a: {text}", "f.yaml").data == {"a": value}


def test_mistakes_in_values_are_named_together() -> None:
    with pytest.raises(UserError) as e:
        yamlfile.parse_yaml("a: [001, 2]\nb: x\nb: y\n", "f.yaml")
    starts = [line.split(" ")[:3] for line in str(e.value).split("\n")]
    assert starts == [["f.yaml:1:", "a.0:", "001"], ["f.yaml:3:", "'b'", "is"]]


def test_merged_keys_have_the_line_where_they_stand() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b\n  y: 3\n  z: 4\nc:\n  <<: [*a, *b]\n  x: 9\nd: {<<: *b, '<<': 5}\n"
    document = yamlfile.parse_yaml(text, "f.yaml")
    assert document.data["c"] == {"x": 9, "y": 2, "z": 4} and document.data["d"] == {"y": 3, "z": 4, "<<": 5}
    assert [document.lines["c", key] for key in "xyz"] == [7, 1, 4]


def test_windows_line_ends_and_byte_order_marks(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbf.x: &x {b: 1}\r\na: *x\r\n")
    assert yamlfile.read_yaml(file).data == {"a": {"b": 1}}
    file.write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(UserError, match="it is UTF-16: save it as UTF-8"):
        yamlfile.read_yaml(file)


def test_a_billion_laughs_are_refused() -> None:
    merges = ["a0: &a0 {lol: 1}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]
    with pytest.raises(UserError, match="expands to more than"):
        yamlfile.parse_yaml("\n".join(merges), "f.yaml")
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
    assert len(line) <= 2000 and not {unicodedata.category(c) for c in line} & {"Cc", "Zl", "Zp", "Cs"}
    assert line == text or not text.isprintable() or len(text) > 2000


def test_the_nearest_name_is_given() -> None:
    assert unknown("method", "kdd", ["crd", "kd"]) == "unknown method 'kdd'; did you mean 'kd'? Valid: crd, kd"
    assert unknown("method", "zzz", ["crd", "kd"]) == "unknown method 'zzz'. Valid: crd, kd"
    assert "did you mean 'top-1 best'?" in unknown("column", "top1", ["seeds", "top-1 last", "top-1 best"])
    assert unknown("method", "kd", []) == "unknown method 'kd': there are none here"
    assert "did you mean" not in unknown("key", "optimizer", ["image_size", "epochs"])
    assert len(unknown("x", "y" * 10_000, map(str, range(1000)))) < 300
    assert shorten(10**5000) == "a huge int"
