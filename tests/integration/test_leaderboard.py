"""The leaderboard in a real browser: headless Chromium, offline, without any console message."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.reporting import statistics
from harness.reporting.comparison import Contents, Spread
from harness.reporting.leaderboard.board import build_board
from harness.spec.sweep_plan import Cell
from harness.store import checksums, files, records
from harness.store.store import Store
from harness.store.tuning_log import Trial, TuningLog
from tests.support.bench import ENVIRONMENT, until
from tests.support.cli import PATIENCE, REPO, run_command
from tests.support.leaderboard_records import put, put_compacted, record, science
from tests.support.warm_python import executable

PUBLISHED = REPO / "results" / "published"
CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    "\"' onmouseover=window.hacked=4 x='",
    "javascript:window.hacked=5",
    "<!--<script>",
    "]]>{{ 7 * 7 }}${window.hacked = 6}",
    "\u202egnp.exe\u2066 \u200f$x_{1}$ \\",
    "__proto__",
    "\x1b[2J\x08 a terminal's",
)


# The browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, file: Path, address: str = "", **how: Any) -> Iterator[Any]:
    """Open the page; check that it logs nothing on the console and requests only itself."""
    context = chromium.new_context(offline=True, **{"viewport": {"width": 1360, "height": 850}, **how})
    page = context.new_page()
    console_messages: list[str] = []
    page.on("console", lambda message: console_messages.append(message.text))
    page.on("pageerror", lambda error: console_messages.append(str(error)))
    page.on("dialog", lambda dialog: console_messages.append(dialog.message))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri() + address)
    yield page
    assert console_messages == []
    assert [url for url in requests if not url.startswith((file.as_uri(), "data:image/"))] == []
    context.close()


def column(page: Any, name: str) -> list[str]:
    """Return a column's cells in the rows that are in the document."""
    return [text.strip() for text in page.locator(f"tr.line td.c-{name}").all_inner_texts()]


def serious(page: Any) -> list[tuple[str, str]]:
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    others = shutil.ignore_patterns("compact", "runs.parquet", "tuning", "digits_tuned", "capacity_gap*")
    store = Store(shutil.copytree(PUBLISHED, folder / "results", ignore=others))
    kept = {cell.run_id for path in store.tables() for cell in Contents.read(path).cells}
    for run_id in store.loose_ids() - kept:
        store.record(run_id).unlink()
    assert run_command("leaderboard", "--results", folder / "results").out.strip() == str(
        folder / "results/leaderboard.html"
    )
    return folder / "results" / "leaderboard.html"


@needs_browser
def test_its_numbers_are_the_tables(chromium: Any, real: Path) -> None:
    """Rows show mean ± std as the sweep's Markdown table does. Settings distinguish variants of a method."""
    cells = re.compile(r"resnet56 > resnet20 \| (\w+) +\| +(\S+ ± \S+|\S+)")
    table = (PUBLISHED / "tables" / "cifar100_cpu" / "table.md").read_text()
    expected = dict(cells.findall(table.partition("Published numbers")[0]))
    assert len(expected) == 5
    with opened(chromium, real) as page:
        first = page.locator("tr.group").first.inner_text()
        assert "cifar100_3ep, 3 epochs, 50,000 training images, 10,000 test images" in first
        shown = dict(zip(column(page, "method")[:7], column(page, "last")[:7], strict=True))
        settings = re.compile(r"\n| hint | crd 0.2| kl 1, reconstruct 5$")  # rekd's are of its version 1
        seen = {settings.split(name)[0].strip(): text for name, text in shown.items()}
        assert {m: seen[m] for m in expected} == expected


@needs_browser
def test_sorts_within_protocols(chromium: Any, real: Path) -> None:
    with opened(chromium, real) as page:
        for key in ("hours", "last"):
            button = page.locator(f"[data-sort={key}]")
            for _ in range(2):
                button.click()
                head = page.locator(f"th.h-{key}")
                values = [float(text.split()[0].replace("–", "nan")) for text in column(page, key)]
                groups = page.locator("tr.group").count()
                assert groups == 2
                inner = [values[:7], values[7:]]
                down = head.get_attribute("aria-sort") == "descending"
                for part in inner:
                    numbers = [v for v in part if v == v]
                    assert numbers == sorted(numbers, reverse=down), (key, down)
                    assert part[: len(numbers)] == numbers, "what has no value comes last"
            assert page.locator("th[aria-sort]").count() == 1
        page.locator("[data-sort=method]").press("Enter")
        assert page.locator("th.h-method").get_attribute("aria-sort") == "ascending"
        assert column(page, "method")[:7] == sorted(column(page, "method")[:7])


@needs_browser
def test_filters_and_links_to_them(chromium: Any, real: Path) -> None:
    with opened(chromium, real) as page:
        page.locator("[name=method]").select_option("fitnets")
        assert {m.split("_")[0].split()[0] for m in column(page, "method")} == {"fitnets"}
        page.locator("[name=protocol]").select_option(index=1)
        assert page.locator("tr.group").count() == 1
        page.locator("[name=q]").fill("TAP last")
        before = column(page, "method")
        assert 0 < len(before) < 7 and all("tap last" in m for m in before)
        assert page.locator("#count").inner_text() == f"{len(before)} rows in 1 pair"
        page.locator("[data-sort=best]").click()
        address = page.evaluate("location.hash")
        page.get_by_role("button", name="Clear").click()
        assert page.locator("#count").inner_text() == "26 rows in 2 pairs"
    with opened(chromium, real, address) as page:
        assert sorted(column(page, "method")) == sorted(before)
        assert page.locator("[name=q]").input_value() == "TAP last"
        assert page.locator("th.h-best").get_attribute("aria-sort") == "descending"


@needs_browser
def test_a_run_by_keyboard_and_by_link(chromium: Any, real: Path) -> None:
    with opened(chromium, real) as page:
        page.keyboard.press("/")
        page.keyboard.type("rekd")
        page.locator("#scroller").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('tr').ariaRowIndex") == "3"
        page.keyboard.press("Enter")
        page.wait_for_selector("#detail h2")
        assert page.locator("#detail h2").inner_text() == "rekd prior student, selection soft, kl 1, reconstruct 5"
        assert page.locator(".tiles").inner_text().split("\n")[1].startswith("47.18")
        assert page.locator("#detail .wide-table tbody tr").count() == 3
        assert page.locator(".panels path.band").count() > 5, "three seeds have a band"
        run = page.locator("#detail td a").first
        run_id = run.inner_text()
        run.click()
        page.wait_for_selector("tr.open")
        address = page.evaluate("location.hash")
        assert address == f"#run={run_id}"
        page.keyboard.press("Escape")
        assert page.locator("#count").inner_text() == "23 rows in 2 pairs", "back as it was left"
    record = next(r for r in records.read_records(Store(PUBLISHED), [run_id]).to_pylist())
    with opened(chromium, real, address) as page:
        page.wait_for_selector("tr.open")
        text = page.locator("#detail").inner_text()
        for expected in (
            record["git_commit"],
            record["weights_sha256"],
            record["hardware"],
            "group_size",
            "milestones",
        ):
            assert expected in text
        for part in ("Evaluation", "Training: loss terms and diagnostics", "Cost", "Versions", "Teacher"):
            assert page.get_by_role("heading", name=part, exact=True).count() == 1
        assert page.locator(".panels figure").count() == len({c["name"] for c in record["curves"]})
    with opened(chromium, real, "#run=0000") as page:
        assert "no record of 0000" in page.locator("#detail").inner_text()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_nothing_serious_for_axe(chromium: Any, broken: Path, scheme: str, width: int) -> None:
    settings = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    with opened(chromium, broken, **settings) as page:
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        page.locator("tr.line a").first.click()
        page.locator("#detail td a").first.click()
        page.wait_for_selector("tr.open")
        for view in ("", "#view=figures", "#view=failures", "#view=about"):
            if view:
                page.goto(broken.as_uri() + view)
            assert serious(page) == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view


@needs_browser
def test_theme(chromium: Any, real: Path) -> None:
    with opened(chromium, real, color_scheme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Theme").click()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light, "kept"
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate(ground) == dark


# Groups, rows and what they state ------------------------------------------------------------------------------------

WIDTHS = ((1400, 900), (1024, 768), (390, 844))
OWN = "my_package.my_module:ADistillerOfMineWithALongName"
LONG = "tiny_convnext_of_mine_with_a_name_that_is_as_long_as_a_line_of_a_phone"
ALONE = {"use": "student", "version": 1, "params": {}, "weights": {"ce": 1.0}}
TEACHER = science(student="resnet56", teacher=None, method=ALONE)
KD = {"use": "kd", "version": 1, "params": {"temperature": 4.0}, "weights": {"ce": 0.1, "kd": 0.9}}
TRIAL = {"name": "cifar100", "version": "v", "train_subset": None, "validation": 5000}
# Of each row: its name in the table, method, changed settings, scores by seed, hours, and further parts of its science
ROWS: tuple[tuple[str, str, dict[str, Any], tuple[float | None, ...], float, dict[str, Any]], ...] = (
    ("student", "student", {}, (60.0, 61.0, 62.0), 1.0, {"teacher": None}),
    ("kd", "kd", {}, (64.0, 66.0, 65.0), 2.0, {}),
    ("kd_hot", "kd", {"temperature": 8.0}, (58.0, 57.0, 59.0), 0.02, {}),
    ("mine", OWN, {"a_long_setting_of_mine": "with_a_long_value", "b": 1}, (100.0, 80.0, 90.0), 2.5, {}),
    ("crd", "crd", {}, (None,), 0.002, {}),
    ("mine", OWN, {}, (5.0, 100.0), 100.0, {"student": LONG}),
    ("student", "student", {}, (100.0, 5.0), 100.0, {"student": LONG, "teacher": None}),
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of two pairs with a teacher that is trained, a tuning's trial, and failures of three kinds."""
    store = Store(tmp_path_factory.mktemp("mixed"))
    cells, last = [], TEACHER
    put(store, record(TEACHER, 72.5))
    for name, use, params, scores, hours, parts in ROWS:
        defaults = {"temperature": 4.0} if use == "kd" else {}
        method = ALONE if use == "student" else {**KD, "use": use, "params": {**defaults, **params}}
        teacher = {"model": "resnet56", "run": TEACHER.run_id}
        for seed, score in enumerate(scores):
            last = science(**{"teacher": teacher, "method": method, "seed": seed, **parts})
            status = "done" if score is not None else "diverged"
            put(store, record(last, score, status=status, cost_total_s=3600 * hours, attempts=2, teacher_top1=72.5))
            cells.append(Cell("resnet56", last.student, name, seed, last.run_id, TEACHER.run_id))
    Contents(LONG[:60], "", "cifar100", (240,), tuple(cells)).write(store.table_folder(LONG[:60]))
    trial = science(method=KD, dataset=TRIAL)
    put(store, record(trial, 70.0, evaluated_on="validation"))
    tried = Trial("kd", 0, 0, {}, (trial.run_id,), 240, 1, 70.0, "done")
    store.all_tunings.mkdir()
    log = TuningLog("sweep", "top1", "tpe", (0,), 5000, (tried,), ())
    files.replace_json(store.tuning("sweep"), checksums.seal_value(asdict(log)))
    store.write_failure(last.run_id, "killed", "the node went down", "", "")
    store.archive_failure(last.run_id)
    for seed in (7, 8):
        store.write_failure(f"{seed:016x}", "code", "CUDA out of memory", f"details {seed}", "")
    store.write_failure("f" * 16, "data", "images.bin: damaged", "", "")
    assert run_command("leaderboard", "--results", store.root).code == 0
    return store.leaderboard


# Texts that stick out of their cell or are hidden by it, and cells that stick out of the page.
CUT = """() => [...document.querySelectorAll('.group th, .line td, .line td > *, thead th')].filter((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const [own, text] = [cell.getBoundingClientRect(), range.getBoundingClientRect()];
  if (!text.width || getComputedStyle(cell).display === 'none' || cell.closest('.h-pick')) return false;
  const out = text.left < own.left - 1 || text.right > own.right + 1 || own.right > innerWidth + 1 || own.left < -1;
  return out || cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth > 0 || text.bottom > own.bottom + 1;
}).map((cell) => cell.className + ': ' + cell.innerText)"""


# Parts of settings' names that stand on more than one line.
BROKEN_NAMES = """() => [...document.querySelectorAll('.wraps tbody th bdi')].flatMap((name) =>
  [...name.childNodes].filter((part) => part.data).filter((part) => {
    const range = document.createRange();
    range.selectNodeContents(part);
    return range.getClientRects().length > 1;
  })).map((part) => part.data)"""


@needs_browser
@pytest.mark.parametrize("size", WIDTHS)
def test_nothing_is_cut(chromium: Any, mixed: Path, size: tuple[int, int]) -> None:
    """Names, units and deviations are whole, and so is the difference to the student on a phone."""
    with opened(chromium, mixed, viewport=dict(zip(("width", "height"), size, strict=True))) as page:
        assert page.evaluate(CUT) == []
        assert page.evaluate("scroller.scrollWidth <= scroller.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".student").last.inner_text() == LONG
        shown = page.locator("tr.line", has=page.get_by_role("link", name="kd", exact=True)).locator("td:visible")
        texts = [text.strip() for text in shown.all_inner_texts() if text.strip()]
        assert {"+4.00 ± 1.00", "65.00 ± 1.00", "2 GPU-h"} <= set(texts), texts
        named = page.evaluate("lines.find((line) => line.names[0] === 'mine').id")
        for view, shown in (("view=about", "#about"), (f"line={named}", "#detail")):
            page.goto(f"{mixed.as_uri()}#{view}")
            page.wait_for_selector(f"{shown} h2")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_rows_are_grouped_and_identified(chromium: Any, mixed: Path) -> None:
    """A teacher is in the head of its pairs. Only what is above the student has a rank."""
    with opened(chromium, mixed) as page:
        assert page.locator("#count").inner_text() == "7 rows in 2 pairs"
        head = page.locator("tr.group").nth(1).inner_text()
        assert head.startswith(f"resnet56 → {LONG}")
        head = page.locator("tr.group").first.inner_text()
        for part in ("resnet56 → resnet20", "teacher 72.50", "student alone 61.00 ± 1.00", "ends at ± 29.00 points"):
            assert part in " ".join(head.split()).replace("\u00a0", " "), head
        methods = [text.split("\n") for text in column(page, "method")[:5]]
        assert methods[1:] == [
            ["kd", "temperature 4"],
            ["student", "resnet20 alone"],
            ["kd_hot", "kd", "temperature 8"],
            ["crd", "ce 0.1, kd 0.9"],
        ], methods
        assert methods[0][:2] == ["mine", OWN]
        assert column(page, "rank")[:5] == ["1", "2", "", "below", ""]
        assert column(page, "hours")[:5] == ["2.5 GPU-h", "2 GPU-h", "1 GPU-h", "1.2 GPU-min", "–"]
        assert column(page, "per_hour")[:5] == ["+50.00", "–", "–", "–", "–"], "only of a gain that costs more"
        bars = "[...document.querySelectorAll('.bar i')].map((i) => [i.style.marginLeft, i.style.width])"
        assert page.evaluate(bars)[1:3] == [["50%", "6.89655%"], ["44.8276%", "5.17241%"]], "from the student alone"
        page.get_by_role("link", name="teacher").first.click()
        page.wait_for_selector("#detail h3")
        assert (
            page.locator("#detail h2").inner_text() == "teacher" and "resnet56" in page.locator(".where").inner_text()
        )


@needs_browser
def test_trials_are_shown_where_asked_for(chromium: Any, mixed: Path) -> None:
    with opened(chromium, mixed) as page:
        page.get_by_label("1 tuning trial").check()
        assert page.evaluate("location.hash") == "#trials=1"
        assert page.locator("#count").inner_text() == "8 rows in 3 pairs"
        assert page.locator("tr.line .flag", has_text="trial").count() == 1


@needs_browser
def test_back_and_forward(chromium: Any, mixed: Path) -> None:
    """A search is one step of the browser's history, however many letters it has."""
    with opened(chromium, mixed) as page:
        page.locator("[name=method]").select_option("kd")
        page.go_back()
        assert page.locator("#count").inner_text() == "7 rows in 2 pairs"
        page.go_forward()
        assert page.locator("#count").inner_text() == "2 rows in 1 pair"
        page.locator("[name=q]").press_sequentially("hot")
        assert page.locator("#count").inner_text() == "1 row in 1 pair"
        page.locator(".c-method a").click()
        page.wait_for_selector("#detail h3")
        page.go_back()
        assert page.locator("[name=q]").input_value() == "hot"
        page.go_back()
        assert page.locator("#count").inner_text() == "2 rows in 1 pair" and not page.locator("[name=q]").input_value()
        page.go_back()
        assert page.locator("#count").inner_text() == "7 rows in 2 pairs"
        page.go_forward()
        assert page.locator("[name=method]").input_value() == "kd"
        page.locator("[name=q]").fill("nothing has this")
        assert page.locator("#nothing").is_visible()
    with opened(chromium, mixed, "#method=gone") as page:
        assert page.locator("[name=method]").input_value() == "gone", "a filter that no row meets is seen"
        page.locator("[name=q]").fill("kd")
        assert page.evaluate("location.hash") == "#q=kd&method=gone"


@needs_browser
def test_two_rows_are_compared(chromium: Any, mixed: Path) -> None:
    """By keyboard: settings that differ, the paired difference with Student's interval, curves over each other."""
    interval = statistics.interval(Spread.of([6.0, 9.0, 6.0]))
    assert interval is not None
    with opened(chromium, mixed) as page:
        page.locator("#scroller").focus()
        for key in ("ArrowDown", "ArrowDown", "c", "ArrowDown", "ArrowDown", "c"):
            page.keyboard.press(key)
        assert page.locator("[data-pick]:checked").count() == 2
        assert serious(page) == []
        page.locator("#compare-them").click()
        page.wait_for_selector("#compare .panels svg")
        text = page.locator("#compare").inner_text()
        assert "kd − kd_hot: +7.00 ± 1.73 points" in text
        assert f"95 % interval +{interval.low:.2f} to +{interval.high:.2f}: 0 is outside" in text
        differing = page.locator("[aria-label='Settings that differ'] tbody tr").all_inner_texts()
        assert [row.split() for row in differing] == [["method.params.temperature", "4", "8"]]
        assert page.locator(".panels figure").first.locator("path.mean").count() == 2
        assert page.locator(".panels figure").first.locator("path.mean.second").count() == 1
        assert serious(page) == []
        address = page.evaluate("location.hash")
        page.keyboard.press("Escape")
        assert page.locator("#count").is_visible()
        page.locator("tr.line .c-method a").first.click()
        page.locator("#detail select").select_option(label="crd ce 0.1, kd 0.9")
        page.wait_for_selector("#compare h3")
        page.locator("#compare", has_text="no seed in common").wait_for()
        for other in ("#compare=a,b", "#compare=", "#compare=__proto__,<img>"):
            page.goto(mixed.as_uri() + other)
            page.locator("#compare", has_text="does not have the two rows").wait_for()
        line, pupil, teacher = (
            page.evaluate(f"lines.find({one}).id")
            for one in ("(l) => l.rank", "(l) => l.method === 'student' && !l.teaches", "(l) => l.teaches")
        )
        page.goto(f"{mixed.as_uri()}#compare={line},{line}")
        page.locator("#compare", has_text="names one row twice").wait_for()
        page.goto(f"{mixed.as_uri()}#compare={pupil},{teacher}")
        page.locator("#compare", has_text="different protocols or students").wait_for()
    with opened(chromium, mixed, address, viewport={"width": 390, "height": 844}) as page:
        page.wait_for_selector("#compare .panels svg")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.goto(f"{mixed.as_uri()}#compare={pupil},{line}")
        page.wait_for_selector("#compare .panels svg")
        assert page.evaluate(BROKEN_NAMES) == []


@needs_browser
def test_failures_are_grouped_by_cause(chromium: Any, mixed: Path) -> None:
    """The failures of runs that have succeeded since are folded."""
    with opened(chromium, mixed, "#view=failures") as page:
        assert page.locator("#failed").inner_text() == "3"
        shown = page.locator("#failure-list > details > summary").all_inner_texts()
        assert [re.sub(r"\s+", " ", text) for text in shown][0] == "code CUDA out of memory 2 runs"
        assert shown[1].startswith("data") and shown[2:] == ["1 superseded failure"]
        assert not page.get_by_text("the node went down").is_visible()
        page.locator("summary").last.scroll_into_view_if_needed()
        page.get_by_text("1 superseded failure").click()
        assert page.get_by_text("the node went down").is_visible()
        page.locator("summary", has_text="CUDA").click()
        assert page.locator(".cause > details").count() == 2 and serious(page) == []


@needs_browser
def test_all_rows_are_printed(chromium: Any, real: Path) -> None:
    with opened(chromium, real) as page:
        before = page.locator("tr.line").count()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("tr.line").count() == 26 > before
        page.emulate_media(media="print")
        assert not page.locator("#filters").is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")


# Hostile text ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a store in which every text is hostile, with failures."""
    store = Store(tmp_path_factory.mktemp("store"))
    cells = []
    for i, bad in enumerate(HOSTILE):
        own = {"use": bad, "version": bad, "params": {bad: bad}, "weights": {"ce": 1.0, bad: 0.5}}
        known = science(method=own, student=bad, dataset={"name": bad, "version": bad, "train_subset": None})
        curves = [
            {"epoch": e, "name": f"{kind}_{bad}", "value": e + 0.5}
            for kind in ("train", "train_d", "test")
            for e in (1, 2)
        ]
        more = {"hardware": bad, "host": bad, "git_commit": bad, "warnings": [bad], "curves": curves, "threads": 2}
        for seed in range(2):
            known = known.with_seed(seed)
            put(store, record(known, 50.0 + i + seed, **more, versions=json.dumps({bad: bad})))
            cells.append(Cell(HOSTILE[1], HOSTILE[0], bad, seed, known.run_id, None))
        store.write_failure(f"{i:016x}", "code", bad, f"log\n{bad}\n", bad)
        failed = known.with_seed(9)
        store.write_science(failed.run_id, failed)
        store.write_failure(failed.run_id, "killed", bad, "", bad)
    put(
        store,
        record(
            science(seed=7), None, status="diverged", curves=[{"epoch": 1, "name": "train_ce", "value": float("nan")}]
        ),
    )
    Contents("a", "", "cifar100", (240,), tuple(cells)).write(store.table_folder("a"))
    store.table_folder("torn").mkdir()
    (store.table_folder("torn") / "contents.json").write_text("{")
    result = run_command("leaderboard", "--results", store.root)
    assert result.code == 0 and result.out.strip() == str(store.leaderboard), result.err
    return store.leaderboard


@needs_browser
def test_hostile_text_is_only_text(chromium: Any, broken: Path) -> None:
    selector = "#main img:not([src^='data:image']), [onerror], [onmouseover]"
    clean = f'window.hacked === undefined && !document.querySelector("{selector}")'
    with opened(chromium, broken, viewport={"width": 1360, "height": 3000}) as page:
        shown = "\n".join(column(page, "method"))
        assert all(bad.strip() in shown for bad in HOSTILE)
        assert "tables that cannot be read: torn" in page.locator("#summary").inner_text()
        scripts = page.evaluate("document.scripts.length")
        assert scripts == 3, "the overview, one chunk, the script"
        links = [link.get_attribute("href") for link in page.locator("a").all()]
        assert all(link.startswith("#") for link in links)
        lines = [link for link in links if link.startswith("#line=")]
        assert len(lines) == len(HOSTILE) + 1
        for link in lines:
            page.goto(broken.as_uri() + link)
            page.wait_for_selector("#detail h3")
            page.locator("#detail td a").first.click()
            page.wait_for_selector("tr.open")
            assert page.evaluate(clean)
        page.goto(broken.as_uri() + "#view=failures")
        assert page.locator("details").count() == 2 * len(HOSTILE)
        text = page.locator("#failure-list").inner_text()
        assert f"{HOSTILE[1]}, seed 9" in text and "its settings are not known" in text
        assert page.evaluate(clean)
        page.locator("summary").last.click()
        page.goto(broken.as_uri() + "#view=figures")
        assert page.get_by_role("heading", name="a", exact=True).count() == 1
        page.wait_for_function("() => [...document.images].every((i) => i.complete && i.naturalWidth)")
        assert page.locator("#figures img").count() > 0
        for address in (
            "#view=__proto__",
            "#sort=__proto__.asc",
            "#line=<img src=x onerror=window.hacked=1>",
            "#view=%zz",
        ):
            page.goto(broken.as_uri() + address)
        assert page.evaluate(clean)


@needs_browser
def test_pictures_of_what_detectors_find_are_in_their_lines(chromium: Any, tmp_path: Path) -> None:
    """A page of both tasks states the metric of each group."""
    store, pair = Store(tmp_path / "results"), ("fasterrcnn_resnet101_fpn", "fasterrcnn_resnet18_fpn")
    counts = {"classes": 80, "train_size": 9, "test_size": 5, "train_per_class": 0}
    known = science(
        dataset={"name": "coco", "version": "v", "train_subset": None, **counts},
        student=pair[1], teacher={"model": pair[0], "sha256": "b" * 64},
    )  # fmt: skip
    curves = [{"epoch": e, "name": n, "value": e} for n in ("train_AP", "train_ce") for e in (1, 2)]
    put(store, record(known, None, last_AP=33.25, best_AP=34.5, teacher_AP=42.0, evaluated_on="train", curves=curves))
    put(store, record(science(), 70.0))
    cell = Cell(*pair, HOSTILE[2], 0, known.run_id, None)
    Contents("detectors", "", "coco", (240,), (cell,)).write(store.table_folder("detectors"))
    assert run_command("leaderboard", "--results", store.root).code == 0
    assert 'id="objects0"' not in store.leaderboard.read_text()
    store.images("detectors").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(store.images("detectors") / f"objects_{'_'.join(pair)}.png")
    assert run_command("leaderboard", "--results", store.root).code == 0
    with opened(chromium, store.leaderboard) as page:
        assert column(page, "last") == ["70.00", "33.25"], "in groups of their own, however they are sorted"
        groups = page.locator("tr.group").all_inner_texts()
        assert ["top-1 in %" in group for group in groups] == [True, False] and "AP in %" in groups[1]
        assert "top-1 or AP in %" in (page.locator("[data-sort=last]").get_attribute("title") or "")
        page.locator(".c-method a").last.click()
        page.wait_for_selector("#detail h3")
        images = page.locator("#detail figure.whole img")
        assert images.count() == 1 and pair[0] in images.get_attribute("alt")
        assert page.wait_for_function("() => document.querySelector('#detail img').naturalWidth === 40")
        tiles = page.locator(".tiles").inner_text()
        assert "Last, AP %" in tiles and "33.25" in tiles and "Teacher, AP %" in tiles and "42.00" in tiles
        evaluation = page.locator("section[aria-label=Evaluation]").inner_text()
        assert "train_AP" in evaluation and "ce" not in evaluation
        assert serious(page) == []
        page.goto(store.leaderboard.as_uri() + "#view=figures")
        assert page.locator("#objects0 img").count() == 1 and serious(page) == []


@needs_browser
def test_the_policy_stops_what_is_not_the_pages_own(chromium: Any, real: Path, tmp_path: Path) -> None:
    """A script that got past the escaping would still not run."""
    copy = tmp_path / "copy.html"
    injected = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><p style='color: red'>"
    copy.write_text(real.read_text().replace("<noscript>", f"{injected}<noscript>", 1))
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.goto(copy.as_uri())
    assert page.locator("tr.line").count() > 0 and page.evaluate("window.hacked") is None
    context.close()


# Size ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of 10,000 rows in ten protocols, from 10,010 runs that finished one second apart."""
    rows = []
    curves = [{"epoch": e, "name": "train_ce", "value": 1.0 / e} for e in (1, 240)]
    for i in range(10_010):
        recipe = {"epochs": 240, "lr": 0.01 * (1 + i % 10)}
        params = {"a": i % 10_000 // 200}
        method = {"use": f"method{i // 10 % 20}", "version": 1, "params": params, "weights": {"ce": 1.0}}
        finished = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=i)
        known = science(recipe=recipe, method=method, seed=i // 10_000)
        rows.append(record(known, 30 + i * 7919 % 5000 / 100, finished_at=finished, curves=curves))
    store = Store(tmp_path_factory.mktemp("large"))
    put_compacted(store, rows)
    assert run_command("leaderboard", "--results", store.root).code == 0
    return store.leaderboard


@needs_browser
def test_of_10000_rows_few_are_in_the_document(chromium: Any, large: Path) -> None:
    with opened(chromium, large) as page:
        rows = page.locator("tr.line")
        assert page.locator("#count").inner_text() == "10,000 rows in 10 pairs"
        assert page.locator("table[role=table]").get_attribute("aria-rowcount") == "10011"
        assert rows.count() < 60
        for share in (0.3, 0.77, 0.5):
            page.evaluate(
                "(s) => { const e = document.getElementById('scroller'); e.scrollTop = s * e.scrollHeight; }", share
            )
            page.wait_for_function("() => document.elementFromPoint(200, 600).closest('tr.line, tr.group')")
            assert rows.count() < 90
            indices = [int(r.get_attribute("aria-rowindex")) for r in page.locator("tbody tr[aria-rowindex]").all()]
            assert indices == list(range(indices[0], indices[0] + len(indices))), "in order, none missing"
        page.locator("#scroller").focus()
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.closest('tr').ariaRowIndex") == "10011"
        page.keyboard.press("PageUp")
        assert page.evaluate("document.activeElement.closest('tr') !== null"), "the focus stays with a row"
        page.locator("[data-sort=method]").click()
        page.locator("[name=q]").fill("method13 12")
        assert rows.count() < 90 and {m.split()[0] for m in column(page, "method")} == {"method13"}
        old, new = (
            page.evaluate(f"overview.lines.find((line) => (line.chunk === null) === {is_old}).id")
            for is_old in ("true", "false")
        )
        page.goto(f"{large.as_uri()}#line={old}")
        page.wait_for_selector("#detail li")
        assert "Of 10,010 runs this page has the details and curves of 500" in page.locator("#detail").inner_text()
        assert page.locator("#detail li").count() == 1 and page.locator(".panels").count() == 0
        page.goto(f"{large.as_uri()}#line={new}")
        page.wait_for_selector(".panels svg")


# Following a store ---------------------------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes(real: Path, tmp_path: Path) -> None:
    """Another process writes the same bytes."""
    rerun = [sys.executable, "-m", "harness.leaderboard", "--results", real.parent, "--out", tmp_path / "again.html"]
    subprocess.run(rerun, env=ENVIRONMENT, check=True, timeout=PATIENCE)
    assert (tmp_path / "again.html").read_bytes() == real.read_bytes()


def test_follows_a_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    watching = subprocess.Popen(
        [executable(), "-m", "harness.leaderboard", "--results", store.root, "--watch"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )  # fmt: skip

    def until_page_has(text: str) -> None:
        until(
            lambda: watching.poll() is not None or store.leaderboard.exists() and text in store.leaderboard.read_text()
        )
        assert watching.poll() is None

    try:
        until_page_has('"runs":0,')
        for seed in range(2):
            known = science(seed=seed)
            put(store, record(known, 50.0))
            until_page_has(f'"runs":{seed + 1},')
        store.write_failure("f" * 16, "code", "the cause", "", "")
        until_page_has("the cause")
    finally:
        watching.send_signal(signal.SIGINT)
        _, log = watching.communicate(timeout=PATIENCE)
    # The signal may cut off the message about the last page.
    assert f"{store.leaderboard}: 2 records, 0 failures" in log and "Traceback" not in log
    assert not list(store.root.glob("*.tmp"))


@needs_browser
def test_a_store_of_failures_says_that_it_has_no_record(chromium: Any, tmp_path: Path) -> None:
    Store(tmp_path).write_failure("f" * 16, "code", "the cause", "", "")
    assert run_command("leaderboard", "--results", tmp_path).code == 0
    with opened(chromium, tmp_path / "leaderboard.html") as page:
        assert page.locator("#nothing").inner_text() == "No run has a record yet."


@needs_browser
def test_numbers_are_not_broken_and_an_equal_row_is_not_below(chromium: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    hot = {**KD, "params": {"temperature": 1.66}}
    put(store, record(science(teacher=None, method=ALONE), 60.0), record(science(method=hot), 60.0))
    assert run_command("leaderboard", "--results", tmp_path).code == 0
    with opened(chromium, store.leaderboard) as page:
        assert sorted(column(page, "rank")) == ["", "equal"]
        unbroken = page.locator(".settings bdi").evaluate_all("(texts) => texts.map((text) => text.firstChild.data)")
        assert "temperature 1.66" in unbroken
        page.get_by_role("link", name="kd", exact=True).click()
        page.wait_for_selector("#detail h3")
        assert "1 equal to the student" in " ".join(page.locator("#detail").inner_text().split())


def test_a_store_without_records_is_refused(tmp_path: Path) -> None:
    """Failures are enough for a page."""
    assert "no record yet" in run_command("leaderboard", "--results", tmp_path).error
    assert list(tmp_path.iterdir()) == []
    Store(tmp_path).write_failure("f" * 16, "code", "the cause", "", "")
    assert run_command("leaderboard", "--results", tmp_path).code == 0


def test_states_of_a_users_code_are_told_apart(tmp_path: Path) -> None:
    """One name is two students if its code has changed: their rows are not compared, and their groups not alike."""
    store = Store(tmp_path)
    for state in "12":
        put(store, record(science(student="mine:Net", student_source=state * 64), 60.0))
    put(store, record(science(student="other:Net", student_source="1" * 64), 60.0))
    groups = build_board(store).overview["groups"]
    assert [group["student"] for group in groups] == ["mine:Net (111111)", "mine:Net (222222)", "other:Net"]
