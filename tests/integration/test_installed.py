"""Plan with the package as pip installs it, outside this checkout: recipes and cluster profiles are included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.cli import PATIENCE, REPO

SWEEP = """
dataset: digits
recipe: digits_quick
methods: [student, kd]
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
seeds: 1
"""


def test_an_installed_copy_plans(tmp_path: Path) -> None:
    source, site, work = (tmp_path / name for name in ("source", "site", "work"))
    for name in ("harness", "methods", "slurm", "benchmarks"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(REPO / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", site, source], check=True, timeout=PATIENCE)
    work.mkdir()
    (work / "sweep.yaml").write_text(SWEEP)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def harness(*args: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *args], cwd=work, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert harness("harness.sweep", "sweep.yaml", "--plan", "--cluster", "loopback").startswith("sweep: 3 runs")
    published = (
        "from harness.reporting.published.numbers import published_numbers as read; print(read('cifar100') is not None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", published], cwd=work, env=environment, capture_output=True, text=True
    )
    assert result.stdout == "True\n", result.stderr
    where = "import harness, slurm, methods; print(harness.__file__, slurm.__file__, methods.__file__)"
    result = subprocess.run([sys.executable, "-c", where], cwd=work, env=environment, capture_output=True, text=True)
    assert result.stdout.count(str(site)) == 3, result.stdout
