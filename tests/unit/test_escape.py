"""Names and texts from files reach no output as a command, whatever they hold: terminal, tables, pages, figures."""

import csv
import html.parser
import io
import re
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from rich.console import Console

from harness.console.progress import FilesProgress
from harness.console.terminal import PrintableStream, at_words, say
from harness.planning import watch
from harness.planning.plan import plan_sweep
from harness.planning.progress_screen import screen
from harness.planning.queues import Queues
from harness.planning.sweep_progress import SweepProgress
from harness.reporting import comparison, escape
from harness.reporting.comparison import Comparison, Contents
from harness.reporting.figures import pareto
from harness.reporting.figures.style import render
from harness.reporting.leaderboard import page
from harness.reporting.leaderboard.board import Board
from harness.reporting.paper import render as paper_formats
from harness.reporting.paper.table import paper
from harness.reporting.tables import formats
from harness.spec.sweep_plan import Cell
from tests.support.cli import run_command
from tests.support.comparisons import SWEEP, row, table
from tests.support.sciences import make_science

TERMINAL = (
    "\x1b[31mred",
    "\x1b]8;;http://x\x1b\\link",
    "\x9b2J",
    "a\rb",
    "\x07\x08\x7f",
    "\u202ertl",
    "a\u200bb\u2066",
)
MARKUP = (
    "<script>x()</script>", "<img src=x onerror=x()>", '" onload="x()', "'><b>", "<!-- -->", "</title>", "&lt;b&gt;",
    "[a](javascript:x)", "![a](x)", "[a]: x", "<https://x>", "[red]a[/red]", "[link=x]a[/link]", "`a", "a|b", "~~~",
    "*a*", "__a__", "\\", "\\<b>", "\n\n# a", "\n<b>", "\u2028</script>",
)  # fmt: skip
TEX = ("$x$", r"\input{x}", "^^5cinput", "%", "#1", "{", "}", "~", "[1cm]", "*")
FORMULAS = ("=cmd|'/c x'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "a;=1", "\uff1d1", "-", "\r=1")
LONE = ("\udc80", "\ud800a")
NASTY = (*TERMINAL, *MARKUP, *TEX, *FORMULAS, *LONE)
SCIENCE = make_science("digits_net_w4").text


def is_visible(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


def compared(text: str) -> Comparison:
    """Return a comparison with this text wherever a file of a store or of a sweep gives one."""
    lines = [(m, seed) for m in ("student", text, "kd") for seed in range(2)]
    cells = [Cell(text, f"s{text}", m, seed, f"run-{i}", None) for i, (m, seed) in enumerate(lines)]
    warnings = [] if text in LONE else [text]  # which Parquet does not take
    rows = [row(c.run_id, 60.0 + c.seed, 61.0, science=SCIENCE, warnings=warnings) for c in cells]
    more: Any = {"dataset_label": text, "file": text, "sets": (text,), "idle_settings": (text,), "tuning": (text,)}
    return comparison.compare(Contents(text, text, "digits", (20,), tuple(cells), **more), table(rows))


def texts(text: str, form: str) -> Iterator[str]:
    shown = compared(text)
    yield formats.FORMATS[form](shown, None)
    yield paper_formats.FORMATS[form](paper(shown, None, None))


@pytest.mark.parametrize("form", formats.FORMATS)
def test_tables_are_visible_text(form: str) -> None:
    for text in NASTY:
        for written in texts(text, form):
            assert is_visible(written), ascii(text)
            written.encode()


def test_markdown_has_no_html_link_or_image() -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    ours = re.compile(r"</?ins>|<details><summary>[^<]*</summary>\n?|</details>\n?")
    for text in NASTY:
        for written in texts(text, "md"):
            for token in parser.parse(written):
                for part in (token, *(token.children or ())):
                    assert part.type not in ("link_open", "image", "heading_open", "s_open"), ascii(text)
                    assert "html" not in part.type or ours.fullmatch(part.content), (ascii(text), part.content)


def test_markdown_tables_keep_their_columns() -> None:
    parser = MarkdownIt("commonmark").enable("table")
    plain = [[t.type for t in parser.parse(written) if t.type.endswith("d_open")] for written in texts("name", "md")]
    for text in NASTY:
        shapes = [[t.type for t in parser.parse(written) if t.type.endswith("d_open")] for written in texts(text, "md")]
        assert shapes == plain, ascii(text)


class _Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))


def test_pages_have_only_their_own_elements() -> None:
    def leaderboard(text: str) -> str:
        overview = {"newest": "", "lines": [{"method": text}], "failures": [{"cause": text}]}
        return page.html(Board(overview, ({text: {}},), {text: []}, text, ()))

    # Only texts with a record's warning have a paragraph for it.
    plain = [[x for x in _Tags(p).tags if x != ("p",)] for p in (*texts("name", "html"), leaderboard("name"))]
    for text in NASTY:
        pages = [*texts(text, "html"), leaderboard(text)]
        assert [[x for x in _Tags(p).tags if x != ("p",)] for p in pages] == plain, ascii(text)


def test_latex_has_no_command_of_a_text() -> None:
    allowed = r"\\text(backslash|asciitilde|asciicircum|bar)\{\}|\\[&%$#_{}]|\$[<>]\$"
    for text in NASTY:
        assert not set(re.sub(allowed, "", escape.escape_tex(text))) & set("\\&%$#_{}~^<>|\n"), ascii(text)
        for written in texts(text, "tex"):
            assert not re.search(r"(\\|rule)\n[\[*]", written), "an argument of what stands before"
            assert not re.search(r"\n\n.", written)


def test_csv_has_no_formula() -> None:
    """A number stays one; where a semicolon parts cells, there is none either."""
    for text in NASTY:
        for written in texts(text, "csv"):
            for cell in (c for line in csv.reader(io.StringIO(written)) for c in line):
                for part in (cell, *cell.split(";")):
                    formula = part.lstrip().startswith(tuple("=+-@\uff0b\uff0d\uff1d\uff20"))
                    assert not formula or re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", part), ascii(text)
    assert [escape.escape_csv(v) for v in (-1.5, "-1.5", "+2e-05", None, "kd")] == [-1.5, "-1.5", "+2e-05", None, "kd"]
    assert [escape.escape_csv(v) for v in ("=1+1", "-rf", "a;@b")] == ["'=1+1", "'-rf", "a;'@b"]


def test_figures_are_text() -> None:
    """Also names that would be formulas for matplotlib."""
    for drawing in pareto.drawings(compared("".join((*TERMINAL, *MARKUP, *TEX)))):
        svg = render(drawing, "svg")["svg"].decode()
        assert is_visible(svg)
        names = {element.tag.rpartition("}")[2] for element in xml.etree.ElementTree.fromstring(svg).iter()}
        assert "script" not in names and "image" not in names
        assert "$x$" in svg


def test_a_stream_writes_no_control_character() -> None:
    for text in NASTY:
        stream = PrintableStream(io.StringIO())
        print("before", text, file=stream, end="")
        stream.writelines([text, " after\n"])
        written = stream.getvalue()
        assert is_visible(written) and written.startswith("before ") and written.endswith(" after\n")


def test_what_is_visible_is_not_escaped() -> None:
    """Text of any script, its spaces and joiners, and emoji; colours and progress bars of a user's own are left out."""
    words = (
        "Größe α ± 1 % – „ok“",
        "模型　一",
        "a\xa0b\u202f%",
        "\U0001f469\u200d\U0001f52c\ufe0f",
        "cafe\u0301 اختبار שם",
    )
    for text in (*words, "می\u200cخواهم", "क्\u200dष"):
        assert escape.escape_html(text) == escape.escape_markdown(text) == text
        written = "".join(texts(text, "md"))
        assert text in written and "\\u" not in written and "\\x" not in written
    stream = PrintableStream(io.StringIO())
    stream.write("\x1b[1;32mgood\x1b[0m\x1b[K\r\n 10 %\r 20 %\n\x1b[2Jx\x1b]8;;y\x07")
    assert stream.getvalue() == "good\n 10 %\n 20 %\n\\x1b[2Jx\\x1b]8;;y\\x07"
    assert escape.escape_html("a\u200db\u200c") == "a\\u200db\\u200c"


def test_a_bar_reads_no_command_in_a_name_or_in_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with FilesProgress() as bar:
        bar.tell("[red]\x1b]8;;x", 1, 2)
        say("a note \x1b[5n[red]")
    written = terminal.getvalue()
    assert "\x1b[?25l" in written, "rich itself commands the terminal"
    assert r"[red]\x1b]8;;x" in written and r"a note \x1b[5n[red]" in written
    assert "\x1b]8" not in written and "\x1b[5n" not in written


def test_status_and_watch_print_no_control_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither names of rich's styles, nor logs and failures of others' runs."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(yaml.safe_dump({**SWEEP, "seeds": 1}))
    planned, text = plan_sweep(Path("s.yaml"), Path("results")), "\n".join(NASTY)
    run_id, other = list(planned.plan.runs)[:2]
    planned.store.run(run_id).mkdir(parents=True)
    log = tmp_path / "\x1b[31m.log"
    log.write_bytes(text.encode(errors="replace"))
    planned.store.add_attempt(run_id, log=str(log))
    progress = SweepProgress(planned)
    planned.store.write_failure(run_id, "code", text, text, str(log))
    progress.update(Queues(lambda: []))
    shown = Console(file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False, width=200)
    for part in (*watch.news(progress, None), *watch.news(progress, 80), screen(progress, 1.0, "", 80, 24)):
        shown.print(part)
    assert isinstance(shown.file, io.StringIO) and is_visible(shown.file.getvalue())
    assert "[red]a[/red]" in shown.file.getvalue()
    for options in ([], ["--failures"], ["--logs", run_id], ["--json"]):
        result = run_command("status", "s.yaml", *options)
        assert result.code == 0 and is_visible(result.out) and is_visible(result.err), options
    assert other in run_command("status", "s.yaml").out


def test_lines_for_people_wrap_at_words_on_a_terminal_and_commands_do_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a line of words that is longer than forty columns\n  python -m harness.report a_long_sweep.yaml --draw"
    monkeypatch.setenv("COLUMNS", "40")
    say(text)
    assert capsys.readouterr().err == text + "\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say(text)
    assert capsys.readouterr().err.split("\n")[:2] == ["a line of words that is longer than", "  forty columns"]
    assert at_words("id  state  a label of a run that is too long", sys.stderr, 11).split("\n") == [
        "id  state  a label of a run that is too", "           long"
    ]  # fmt: skip
