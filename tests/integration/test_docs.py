"""Run the documentation's examples: bash blocks as commands, python blocks as programs, yaml blocks as sweep files.

The blocks of a page run in order, in a folder of their own. A block whose first line is a comment with a file's name is
that file's content. `diff` blocks are applied to the harness's files. `text` blocks hold commands that are refused
(`$ ...`), each with its error message. `sh` blocks hold what a test cannot run, such as make.
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.perf.cifar import Trainer
from harness.spec import methods, reference
from tests.support.bench import Bench
from tests.support.cli import PATIENCE, REPO, on_a_terminal, run_command, use_cores
from tests.support.warm_python import executable

PATTERNS = ("*.md", "docs/**/*.md", "results/README.md", "benchmarks/*/README.md")
PAGES = sorted(str(page.relative_to(REPO)) for pattern in PATTERNS for page in REPO.glob(pattern))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def file(self) -> str | None:
        match = re.match(r"# ([\w./]+\.(?:yaml|py))\n", self.text)
        return match and match[1]


def blocks(page: str) -> list[Block]:
    text = (REPO / page).read_text(encoding="utf-8")
    page_blocks = [Block(*match.groups()) for match in FENCE.finditer(text)]
    assert len(page_blocks) * 2 == text.count("```"), "a fence that this test does not understand"
    return page_blocks


def run_page(page: str, folder: Path, packages: Path = REPO, shorter: Mapping[str, str] = {}) -> None:  # noqa: B006
    """Run a page's blocks. ``packages`` is the folder of the harness and the methods that its commands run.

    ``shorter``: texts of its sweep files, with what stands in their place to save time.
    """
    os.symlink(REPO / "benchmarks", folder / "benchmarks")
    path = os.pathsep.join((str(Path(executable()).parent), str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(packages), "CUDA_VISIBLE_DEVICES": ""}
    for number, block in enumerate(blocks(page)):
        if block.language == "yaml":
            file = folder / (block.file or f"block{number}.yaml")
            text = functools.reduce(lambda text, change: text.replace(*change), shorter.items(), block.text)
            file.write_text(text, encoding="utf-8")
            if packages == REPO:
                with contextlib.chdir(folder):
                    planned = run_command("sweep", file, "--plan", "--results", folder / "unused")
                assert planned.code == 0, planned.err
        elif block.language == "python" and block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language in ("bash", "python"):
            shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [executable(), "-c"]
            result = subprocess.run(
                [*shell, block.text],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                preexec_fn=use_cores,
            )
            assert result.returncode == 0, f"{page}:\n{block.text}\n{result.stdout}\n{result.stderr}"
            assert "Traceback" not in result.stderr
        elif block.language == "diff":
            subprocess.run(["git", "apply", "--unidiff-zero", "-"], cwd=folder, input=block.text, text=True, check=True)
        elif block.language == "text":
            for line, message in re.findall(r"^\$ (.*)\n(.*)$", block.text, re.MULTILINE):
                result = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True)
                assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{message}\n")
        else:
            assert block.language == "sh", f"{page}: a block in {block.language or 'no language'}"


def words(text: str) -> list[str]:
    """Return the words of a printed comparison, without the column that is there while a test finds no difference."""
    without = re.sub(r"to\s+tell|seeds to tell.*|over 10,000|(?<=\n)\s+seeds(?=\n)", "", text)
    return re.findall(r"[A-Za-z_]{2,}", without)


RUN = (
    "docs/augmentation.md",
    "docs/concepts.md",
    "docs/sweep-file.md",
    "docs/teachers.md",
    "docs/methods.md",
    "docs/imagenet.md",
    "docs/coco.md",
    "docs/transformers.md",
    "docs/views-and-mixing.md",
    "docs/recipes.md",
    "docs/your-own-data.md",
    "docs/fine-tuning.md",
    "docs/transfer.md",
    "docs/tuning.md",
    "docs/tracking.md",
)


@pytest.mark.parametrize("page", RUN)
def test_pages_run(page: str, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.parametrize(
    "page", ["docs/results.md", "docs/leaderboard.md", "docs/trained-models.md", "docs/fidelity.md"]
)
def test_pages_on_a_finished_store_run(finished: Bench, page: str, tmp_path: Path) -> None:
    shutil.copytree(finished.store.root, tmp_path / "results")
    run_page(page, tmp_path)


def test_the_readme_runs_and_shows_what_its_sweep_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = {"recipe: digits_quick": "recipe: {base: digits_quick, epochs: 2}", "seeds: 5": "seeds: 3"}
    assert all(text in (REPO / "README.md").read_text() for text in shorter)
    run_page("README.md", tmp_path, shorter=shorter)
    monkeypatch.chdir(tmp_path)
    with on_a_terminal(80):
        printed = run_command("sweep", "small.yaml")
    (shown,) = (block.text for block in blocks("README.md") if block.language == "text")
    text = re.sub(r";\s+† for \*: worse", "", printed.out)  # after so few epochs, one may be
    assert words(text) == words(shown), "numbers depend on the processor and on the epochs"
    for folder in ("results/tables/small", "tables/small"):
        assert {p.suffix for p in (tmp_path / folder).iterdir()} == {
            ".md",
            ".tex",
            ".csv",
            ".html",
            ".parquet",
            ".json",
        }


def test_your_own_method_runs_and_is_in_the_table(tmp_path: Path) -> None:
    run_page("docs/your-own-method.md", tmp_path)
    table = (tmp_path / "results/tables/own/table.md").read_text(encoding="utf-8")
    for entry in ("student", "kd", "mse", "mse_half"):
        (line,) = (line for line in table.splitlines() if f"| {entry} " in line)
        assert re.search(r"\| \d+\.\d\d +\||\| +\d+\.\d\d \|", line), f"{entry} has no accuracy: {line}"


def test_your_own_model_runs_and_is_in_the_table(tmp_path: Path) -> None:
    run_page("docs/your-own-model.md", tmp_path)
    table = (tmp_path / "results/tables/tiny/table.md").read_text(encoding="utf-8")
    assert (
        len(re.findall(r"^\| my_package.nets:TinyNet\(width=16\) > my_package.nets:TinyNet .*\d\.\d\d", table, re.M))
        == 3
    )


def test_a_third_task_runs_and_is_in_the_table(tmp_path: Path) -> None:
    for package in ("harness", "methods", "slurm"):
        shutil.copytree(REPO / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    run_page("docs/adding-a-task.md", tmp_path, packages=tmp_path)
    table = (tmp_path / "results/tables/shapes/table.md").read_text(encoding="utf-8")
    assert "mean IoU last" in table
    for entry in ("student", "kd"):
        (line,) = (line for line in table.splitlines() if f"| {entry} " in line)
        assert re.search(r"\| +\d+\.\d\d \|", line), f"{entry} has no mean IoU: {line}"


def test_the_reference_is_up_to_date() -> None:
    page = (REPO / "docs/sweep-file.md").read_text(encoding="utf-8")
    assert page == reference.updated(page), "run: python -m harness.spec.reference docs/sweep-file.md"


def test_the_reference_names_every_key_and_default() -> None:
    text = reference.reference()
    for _, model in reference.SECTIONS:
        for name, field in model.model_fields.items():
            assert f"| `{name}` |" in text
            assert field.description and field.description.replace("|", "\\|") in text, f"{name} is not described"
    assert "### `rekd`" in text and "| `temperature` | number | `4` |" in text and "`ce: 0.1`, `kd: 0.9`" in text


def test_the_table_of_methods_has_all_and_their_parameters() -> None:
    page = (REPO / "docs/methods.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")) == 9}
    assert set(methods.builtin_names()) <= set(rows)
    trainer = Trainer(1)
    for name in methods.builtin_names():
        if "classification" not in methods.describe_method(name).defined_for:
            continue
        member = trainer.member(name)
        extra = sum(p.numel() for p in member.parameters) - sum(p.numel() for p in member.student.parameters())
        assert rows[name][5].strip() == f"{extra:,}", name


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, which GitHub and the site derive in the same way."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", (REPO / page).read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            file = (REPO / page).parent / target if target else REPO / page
            assert file.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(file), f"{page}: {target}#{anchor}"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra `docs`")
def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(build, cwd=REPO, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr
    for page in PAGES:
        assert (tmp_path / page.replace("README.md", "index.md")).with_suffix(".html").exists(), page
    assert "open_store" in (tmp_path / "search/search_index.json").read_text(encoding="utf-8")
    for file in tmp_path.rglob("*.html"):
        html = file.read_text(encoding="utf-8")
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]* src="?([^" >]+)|<link [^>]*href="?([^" >]+)""", html)
        assert not [address for pair in loaded for address in pair if re.match("(?:https?:)?//", address)], file
        assert "```" not in html, f"{file}: a code block that is not one"


def prose(page: str) -> list[str]:
    """Return a page's lines outside code blocks, tables, headings and generated parts; other lines are left empty."""
    text = (REPO / page).read_text(encoding="utf-8").partition(reference.MARKER)[0]
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return ["" if re.match(r"[#|<]|:::|    ", line) else line for line in text.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_a_line_of_prose_is_one_sentence(page: str) -> None:
    lines = prose(page)
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text = re.sub(r"^ *\d+\.|\b(?:e\.g|i\.e|et al|vs|cf)\.", "", line)
        assert not re.search(r"[.?!][)\"*]* +[A-Z`\[*]", text), f"{page}: more than one sentence in: {line}"
        goes_on = following and not re.match(r" *(?:-|\d+\.) ", following)
        assert not (line and goes_on) or re.search(r"[.:?!][)\"*`]*$", line), (
            f"{page}: a sentence goes on after: {line}"
        )


def test_names_in_backticks_exist() -> None:
    """Files, folders and make targets named on the pages exist."""
    makefile = (REPO / "Makefile").read_text()
    for page in PAGES:
        text = (REPO / page).read_text(encoding="utf-8").partition(reference.MARKER)[0]
        code = [*re.findall(r"`([^`]+)`", FENCE.sub("", text)), *(match[2] for match in FENCE.finditer(text))]
        for target in re.findall(r"^make ([\w-]+)", "\n".join(code), re.MULTILINE):
            assert f"\n{target}:" in makefile, f"{page}: make {target}"
        for name in code:
            if re.fullmatch(r"(?:tests|methods|harness|slurm|benchmarks|docs)/[a-z\d_/.-]+", name):
                assert (REPO / name).exists(), f"{page}: {name}"


def test_the_tests_that_a_page_names_exist() -> None:
    named = [test for page in PAGES for test in re.findall(r"`(tests/\S+::\w+)`", (REPO / page).read_text())]
    assert len(named) > 15
    for file, name in (test.split("::") for test in named):
        assert f"\ndef {name}(" in (REPO / file).read_text(encoding="utf-8"), f"{file}::{name}"
