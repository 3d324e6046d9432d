"""The list of what a sweep file can name."""

import json

import pytest

from harness.spec import listing, methods, sweep_file
from harness.spec.tasks import CATALOG, DATASETS
from tests.support.cli import run_command


def test_everything_that_a_sweep_can_name_is_listed() -> None:
    assert [e.name for e in listing.entries("methods")] == list(methods.builtin_names())
    assert {e.name for e in listing.entries("models")} == {name for task in CATALOG.values() for name in task.models}
    assert {e.name for e in listing.entries("datasets")} == set(DATASETS)
    assert {e.name for e in listing.entries("recipes")} == {p.stem for p in sweep_file.SHIPPED_RECIPES.glob("*.yaml")}
    assert all(e.summary for kind in listing.LISTINGS for e in listing.entries(kind))


def test_a_name_gives_its_details_and_a_part_of_one_what_contains_it() -> None:
    (kd,) = listing.entries("methods", "kd")
    assert kd.details["params"] == {"temperature": 4.0} and "detection" in kd.details["for"]
    (mobile,) = listing.entries("models", "mobilenetv2")
    assert mobile.name == "MobileNetV2"
    assert {e.name for e in listing.entries("models", "vit_tiny_patch16_2")} == {"timm:vit_tiny_patch16_224"}


def test_the_command_prints_one_line_an_entry_where_nobody_looks() -> None:
    lines = run_command("list", "recipes").out.splitlines()
    assert len(lines) == len(listing.entries("recipes"))
    assert any(line.split()[0] == "crd_240ep" and "arXiv:1910.10699" in line for line in lines)
    assert run_command("list", "models", "timm:vit_tiny_patch16_224").out.count("\n") == 1
    assert "  crop_area: [0.08, 1]\n" in run_command("list", "recipes", "deit_300ep").out
    assert run_command("list", "models").out.splitlines()[0].endswith("83.9 k parameters, 12.5 M multiply-adds")
    found = json.loads(run_command("list", "models", "digits_net_w4", "--json").out)
    assert found[0]["details"]["taps"]["stem"] == "2x8x8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model",), "unknown listing 'model'; did you mean 'models'?"),
        (("methods", "fitnet"), ""),
        (("methods", "kdd"), "unknown method 'kdd'; did you mean 'kd'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(arguments: tuple[str, ...], message: str) -> None:
    result = run_command("list", *arguments)
    assert result.code == (2 if message else 0) and message in result.err
