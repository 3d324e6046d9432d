"""Cluster profiles: errors, changes by size, and the page that names every key."""

from pathlib import Path

import pytest

from harness.errors import UserError
from slurm import profiles
from slurm.profiles import BySize, Profile, Resources

PAGE = Path(__file__).resolve().parents[2] / "docs" / "slurm.md"


def load(folder: Path, text: str) -> Profile:
    file = folder / "mine.yaml"
    file.write_text(text)
    return profiles.load_profile(str(file))


@pytest.mark.parametrize("model", [Profile, Resources, BySize])
def test_the_page_explains_every_key(model: type[Profile | Resources | BySize]) -> None:
    rows = PAGE.read_text().splitlines()
    for name, field in model.model_fields.items():
        row = [r for r in rows if r.startswith(f"| `{name}` |") and field.description and field.description in r]
        assert len(row) == 1, f"docs/slurm.md needs a row on `{name}`: {field.description}"
        if isinstance(field.default, int | float):
            assert f"| {field.default:g} |" in row[0]


def test_a_cluster_without_gpus_can_say_so(tmp_path: Path) -> None:
    assert load(tmp_path, "resources: {time_minutes: 60, gpus_per_node: 0}").resources.gpus_per_node == 0


@pytest.mark.parametrize("name", profiles.profile_names())
def test_the_profiles_that_come_with_it_are_valid(name: str) -> None:
    assert profiles.load_profile(name).resources.time_minutes > 0


def test_the_last_rule_that_matches_wins(tmp_path: Path) -> None:
    profile = load(
        tmp_path,
        "resources: {time_minutes: 60, mem_gb: 4}\n"
        "by_size:\n"
        "  - {student: 'wrn_*', resources: {time_minutes: 120}}\n"
        "  - {student: 'wrn_40_*', teacher: 'resnet*', resources: {time_minutes: 240, mem_gb: 8}}\n",
    )
    assert profile.resources_for("resnet8", None) == profile.resources
    assert profile.resources_for("wrn_40_1", None) == Resources(time_minutes=120, mem_gb=4)
    assert profile.resources_for("wrn_40_1", "resnet56") == Resources(time_minutes=240, mem_gb=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin: gpu\n", "partition"),
        ("partition: gpu\nresources: {time_minutes: 0}\n", "mine.yaml:2: resources.time_minutes"),
        ("by_size:\n  - {student: 'a*', resources: {hours: 3}}\n", "time_minutes"),
        ("resources: {zero_stage: 1}\n", "zero_stage 1 belongs to engine deepspeed"),
        ("resources: {nodes: 2, engine: deepspeed, zero_stage: 3}\n", "resources.zero_stage"),
        ("resources: {nodes: 2, engine: deepsped}\n", "deepsped"),
        (
            "resources: {nodes: 2, engine: deepspeed}\nby_size:\n  - {resources: {nodes: 1}}\n",
            "engine deepspeed is for several processes (nodes x tasks_per_node), and this is one",
        ),
        ("resources: {time_minutes: 1}\n", "signal_seconds: 90 s before the time limit is before the start"),
        ("by_size:\n  - {resources: {time_minutes: 2}}\nsignal_seconds: 120\n", "mine.yaml:3: signal_seconds"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert message in str(error.value)


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match="loopback"):
        profiles.load_profile("lopback")
