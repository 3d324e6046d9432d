"""1,000 mutated sweep files give no traceback, exit code 0 or 2, and one message."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.cli import CommandResult, process, run_command

SWEEP: dict[str, Any] = {
    "name": "small",
    "note": "a note",
    "dataset": {"name": "digits", "train_subset": 100},
    "recipe": {"base": "digits_quick", "epochs": 3, "milestones": [1, 2], "schedule": "step"},
    "teachers": {"recipe": "digits_quick", "seed": 1},
    "methods": {
        "student": None,
        "kd": {"params": {"temperature": 2.0}, "weights": {"ce": 0.5}},
        "mine": {"use": "rekd", "params": {"selection": "mean", "samples": 2}, "recipe": {"lr": 0.1}},
    },
    "pairs": [
        {"teacher": "digits_net_w8", "student": "digits_net_w4", "methods": {"kd": {"params": {"temperature": 3}}}},
        {
            "teacher": "digits_net_w16",
            "student": "digits_net_w4",
            "teacher_weights": {"file": "t.pth", "sha256": "ab" * 32, "top1": 90.0},
            "recipe": {"weight_decay": 0.001},
        },
        {
            "teacher": "digits_net_w16",
            "student": "digits_net_w8",
            "teacher_weights": {"url": "https://localhost:1/t.pth", "sha256": "cd" * 32},
        },
    ],
    "seeds": [0, 1],
}
TEXT = yaml.safe_dump(SWEEP, sort_keys=False)
KEYS = (
    "name",
    "note",
    "dataset",
    "recipe",
    "methods",
    "pairs",
    "seeds",
    "teachers",
    "use",
    "params",
    "weights",
    "base",
    "file",
    "url",
)

ODD_TEXT = st.sampled_from(
    [
        "", " ", "kd", "../../etc/passwd", "/dev/null", "/dev/zero", "~nobody-here/x", "a\nb", "a\r\nb",
        "\x00", "\x1b[31m",
        "'; rm -rf / #", "$(reboot)", "`id`", '"', "'", "{}", "{{x}}", "%s %n", "x" * 5000, "é" * 300,
        "\u202e", "\ud800",
        "nan", "inf", "1e999", "os.path:join", "this.that:X", "__main__:X", ":", "a:b:c", "..:X",
        "methods.kd:KD", "<b>",
        "methods.kd:soft_target_loss", "harness:X", "torch.nn:Module", "None", "true", "0x10", "-1", "*", "&a", "!!x",
    ]
)  # fmt: skip
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, -(2**64), 10**30, 10**400, 1e308, -0.0, float("nan"), float("inf")]),
    st.floats(),
    ODD_TEXT,
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]], [{}], {"a": {"b": [1]}}, [None], ["kd"], {"kd": None}, [0] * 3000, ["x"] * 300]),
    st.lists(st.integers(-5, 5), max_size=4),
    st.dictionaries(st.sampled_from(KEYS), st.integers() | ODD_TEXT, max_size=3),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@st.composite
def structures(draw: st.DrawFn) -> str:
    """Draw the sweep with values of other types, misspelt or missing keys and repeated entries."""
    root: dict[str, Any] = {"": copy.deepcopy(SWEEP)}
    for _ in range(draw(st.integers(1, 3))):
        path = ("", *draw(st.sampled_from(places(root[""]))))
        node: Any = root
        for key in path[:-1]:
            node = node[key]
        key, kind = path[-1], draw(st.sampled_from(["replace", "remove", "rename", "repeat", "add"]))
        if kind == "replace" or (kind == "remove" and path == ("",)):
            node[key] = copy.deepcopy(draw(ODD))
        elif kind == "remove":
            del node[key]
        elif kind == "rename" and isinstance(node, dict) and path != ("",):
            at, new = draw(st.integers(0, len(key))), draw(st.sampled_from(["", "x", "_", "\n", "'", "é", "\x1b"]))
            node[key[:at] + new + key[at + 1 :]] = node.pop(key)
        elif kind == "add" and isinstance(node[key], dict):
            node[key][draw(st.sampled_from(KEYS) | ODD_TEXT)] = copy.deepcopy(draw(ODD))
        elif isinstance(node[key], list):
            node[key] = copy.deepcopy(node[key]) * draw(st.sampled_from([2, 50]))
        if not isinstance(root[""], dict | list):
            break
    return yaml.safe_dump(root[""], sort_keys=False, allow_unicode=draw(st.booleans()))


SPLICES = st.sampled_from(
    [
        "\t", "  ", ":", ": ", "- ", "? ", "&a ", "*a", "<<: *a\n", "!!int ", "!!python/object:os.system ",
        "!x ", "[", "]",
        "{", "}", "|\n", ">\n", "---\n", "...\n", "%YAML 9.9\n", "#", "'", '"', "\\", '"\\UFFFFFFFF"',
        '"\\ud800"', "@", "`",
        "1" * 5000, "0x" + "f" * 5000, "[" * 2000, "{a: " * 500, "- " * 1500, ".nan", "-.inf", "1e999",
        "2001-99-99", "~",
        "!!binary =", "!!timestamp x", "&a [*a]", "\ufeff", "\u2028", "\x85", "\x07", "null: 1\n", "1: 2\n",
        "[]: 1\n", "=",
        "010", "1:30:00", "no", "0,05", "2026-12-01", "<<: {lr: 0.1}\n", "<<: [{a: 1}, 2]\n", "0-4", "\u2013", "\u00a0",
        "&x [lol, lol, lol, lol, lol]\ny: &y [*x, *x, *x, *x, *x, *x]\nz: [*y, *y, *y, *y, *y, *y, *y]\n",
    ]
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str | bytes:
    """Draw the sweep's text with lines deleted, doubled, swapped or reindented, and odd text spliced in."""
    lines = TEXT.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["delete", "double", "swap", "indent", "splice", "value", "text", "cut"]))
        at = draw(st.integers(0, len(lines[i])))
        if kind == "delete" and len(lines) > 1:
            del lines[i]
        elif kind == "double":
            lines.insert(j, lines[i])
        elif kind == "swap":
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == "indent":
            lines[i] = draw(st.sampled_from(["", " ", "  ", "   ", "\t", " " * 9])) + lines[i].lstrip()
        elif kind == "value":
            lines[i] = f"{lines[i].partition(':')[0]}: {draw(SPLICES)}\n"
        elif kind == "cut":
            lines[i] = lines[i][:at]
        else:
            lines[i] = lines[i][:at] + draw(SPLICES if kind == "splice" else st.text(max_size=6)) + lines[i][at:]
    text = "".join(lines)
    if draw(st.booleans()):
        return text
    data = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=4)) + data[at:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


def thrown(text: str | bytes, home: Path, *args: str) -> CommandResult:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (home / "sweep.yaml").write_bytes(data)
    return run_command("sweep", home / "sweep.yaml", "--plan", "--results", home / "results", *args)


def check(result: CommandResult, home: Path) -> None:
    assert result.code in (0, 2)
    if result.code == 2:
        assert result.error.startswith((str(home), "--")), "names neither the file nor the option"
        assert len(result.error) < 2100
    else:
        assert result.err == "" and " to do, 0 done, 0 failed" in result.out
    assert sorted(p.name for p in home.iterdir()) == ["sweep.yaml"], "something was written"


MANY = settings(max_examples=500, suppress_health_check=list(HealthCheck))


@MANY
@given(text=structures())
def test_mutated_structures(text: str, home: Path) -> None:
    check(thrown(text, home), home)


@MANY
@example(text=TEXT)
@example(text=b"\xff\xfe")
@example(text="")
@given(text=texts())
def test_mutated_texts(text: str | bytes, home: Path) -> None:
    check(thrown(text, home), home)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from([".".join(map(str, p)) for p in places(SWEEP)]) | st.text(max_size=12) | ODD_TEXT,
    value=ODD.map(repr) | ODD_TEXT | SPLICES,
    option=st.sampled_from(["--set", "--only"]),
)
def test_odd_overrides(path: str, value: str, option: str, home: Path) -> None:
    check(thrown(TEXT, home, option, f"{path}={value}"), home)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "a: !!int ''",
        "a: " + "[" * 3000,
        "a: 0x" + "f" * 6000,
        TEXT.replace("kd", "k\nd"),
        b"\xff\xfe",
        b"a: \x00",
    ],
    ids=range(7),
)
def test_in_a_process_of_its_own(text: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    args = (tmp_path / "sweep.yaml", "--plan", "--results", tmp_path / "results", "--max-parallel", 1)
    result = process("-m", "harness.sweep", *args)
    check(result, tmp_path)
    assert result == run_command("sweep", *args)
