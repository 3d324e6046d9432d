"""The files of the documentation site, under their paths in the repository, so that links hold here and there alike."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = (
    "*.md", "docs/**/*.md", "results/README.md", "benchmarks/*/README.md", "results/published/tables/*/table.md",
    "results/published/tables/*/gap.md", "results/published/tables/*/tuning.md",
    "results/published/claims/*/verdict.md",
)  # fmt: skip
LINKED = ("benchmarks/*.yaml", "docs/**/*.png", "docs/**/*.svg")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of ``docs_dir`` by those of the repository; keep what the theme and the plugins add."""
    for file in files.documentation_pages() + files.media_files():
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(config.docs_dir):
            files.remove(file)
    for path in sorted(path for pattern in PAGES + LINKED for path in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files
