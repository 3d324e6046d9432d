"""Mutated recipes and cluster profiles give no traceback, exit code 0 or 2, and one message that names the file."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import run_command
from tests.support.mutated_inputs import check_mutants, mutated_bytes, mutated_value

pytestmark = pytest.mark.timeout(600)  # a command that hangs

SWEEP = """
dataset: digits
recipe: mine
methods: [student, kd]
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
seeds: 1
"""
RECIPE: dict[str, Any] = {
    "epochs": 3, "lr": 0.1, "batch_size": 64, "schedule": "step", "milestones": [1, 2], "gamma": 0.1, "nesterov": False,
    "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 0, "flip": False, "precision": "float32", "eval_every": 1,
}  # fmt: skip
PROFILE: dict[str, Any] = {
    "partition": "gpu",
    "resources": {"time_minutes": 60, "mem_gb": 8, "nodes": 1, "cpus_per_task": 2, "gpus_per_node": 0},
    "by_size": [{"student": "digits_*", "resources": {"time_minutes": 30, "tasks_per_node": 2}}],
    "setup": ["module load python"],
    "sbatch": {"exclusive": True, "nice": 5},
    "signal_seconds": 90,
    "max_attempts": 3,
    "poll_seconds": 5.0,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mutated")
    (home / "small.yaml").write_text(SWEEP)
    (home / "recipes").mkdir()
    (home / "recipes/mine.yaml").write_text(yaml.safe_dump(RECIPE))
    (home / "cluster.yaml").write_text(yaml.safe_dump(PROFILE))
    return home


def mutated_yaml(value: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.75:
        return yaml.safe_dump(mutated_value(value, rng), allow_unicode=True).encode("utf-8", "surrogatepass")
    return mutated_bytes(yaml.safe_dump(value).encode(), rng)


def check(home: Path, path: Path, value: Any, count: int, *args: object) -> None:
    def write(path: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_yaml(value, rng))

    command = ("sweep", home / "small.yaml", "--plan", "--results", home / "results", *args)
    # A recipe's mistake may show where the sweep file names it.
    check_mutants(path, write, [lambda: run_command(*command)], count, folder=home, readable=Path.is_file)


def test_recipes(home: Path) -> None:
    check(home, home / "recipes/mine.yaml", RECIPE, 110)


def test_profiles(home: Path) -> None:
    check(home, home / "cluster.yaml", PROFILE, 110, "--cluster", home / "cluster.yaml")
