"""Cluster profiles: errors, changes by size, and the page that names every key."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from harness.errors import UserError
from slurm import profiles
from slurm.containers import Container
from slurm.profiles import BySize, Profile, Resources, Stage
from slurm.retry import Retry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "slurm.md"


def load(folder: Path, text: str) -> Profile:
    file = folder / "mine.yaml"
    file.write_text(text)
    return profiles.load_profile(str(file))


@pytest.mark.parametrize("model", [Profile, Resources, BySize, Container, Stage, Retry])
def test_the_page_explains_every_key(model: type[BaseModel]) -> None:
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
        (
            "resources: {jobs_per_node: 3, gpus_per_node: 8}\n",
            "jobs_per_node is 3 for 8 GPUs: expected a multiple of 8",
        ),
        ("resources: {jobs_per_node: 3, gpus_per_node: 2}\n", "jobs_per_node is 3 for 2 GPUs"),
        ("resources: {jobs_per_node: 2, nodes: 2}\n", "jobs_per_node is 2, and a job has 2 processes (nodes x"),
        ("resources: {time_minutes: 1}\n", "signal_seconds: 90 s before the time limit is before the start"),
        ("partition: 'a, b'\n", "mine.yaml:1: partition: expected the names of partitions, without spaces, as in a,b"),
        ("partition: 'a,'\n", "found 'a,'"),
        ("partition: ''\n", "partition: expected the names of partitions"),
        ("partition: []\n", "partition: expected the names of partitions"),
        ("partition: [a, 1]\n", "mine.yaml:1: partition: expected text"),
        ("container: {mounts: [/a]}\n", "mine.yaml:1: container.image: is required and missing"),
        ("container: {image: ./a.sif}\n", "container.image: expected an absolute path or a name"),
        ("container: {image: /a.sif, mounts: [a]}\n", "container.mounts.0: expected an absolute path, in which $NAME"),
        ("container: {image: /a.sif, mounts: ['/a:/b:rx']}\n", "expected FOLDER, FOLDER:PLACE or FOLDER:PLACE:ro"),
        ("container: {image: /a.sif, runtime: docker}\n", "container.runtime: "),
        (
            "container: {image: /a.sif}\npython: apptainer exec /a.sif python\n",
            "mine.yaml:2: python: expected the Python inside the container, without spaces, found 'apptainer exec",
        ),
        ("stage: {data: scratch}\n", "mine.yaml:1: stage.data: expected an absolute path, in which $NAME"),
        ("stage: {data: /s/$(id)}\n", "stage.data: expected an absolute path, in which $NAME"),
        ("partition: main\naccount: 012345\n", "mine.yaml:2: account: 012345 starts with a zero, which YAML 1.1"),
        ("partition: main\naccount: 12345\n", "mine.yaml:2: account: expected text, found 12345; put it in quotes"),
        ("sbatch: {begin: 2026-12-01}\n", "mine.yaml:1: sbatch.begin: 2026-12-01 is a date in YAML 1.1"),
        (
            "sbatch: {time: '1:30:00'}\n",
            "sbatch.time: repeats a key of the profile; state it as `resources.time_minutes`",
        ),
        (
            "sbatch: {--mem: 4G}\n",
            "mine.yaml:1: sbatch.--mem: repeats a key of the profile; state it as `resources.mem_gb`",
        ),
        ("sbatch: {ntasks_per_node: 2}\n", "state it as `resources.tasks_per_node`"),
        ("sbatch: {N: 2}\n", "state it as `resources.nodes`"),
        ("sbatch: {comment: 1e5}\n", "mine.yaml:1: sbatch.comment: expected text, an integer, or true for"),
        ("sbatch: {exclude: [a, b]}\n", "write 'a,b'"),
        ("sbatch: {export: ALL,A=1}\n", "found nothing; quote a text with commas"),
        ("sbatch: {o: x.log}\n", "sbatch.o: is set by the harness"),
        ("sbatch: {w: node1}\n", "write nodelist"),
        ("mem: 16G\n", "mine.yaml:1: mem: unknown key 'mem'; state it as `resources.mem_gb`"),
        ("resources: {gres: 'gpu:1'}\n", "resources.gres: unknown key 'gres'; state it under `sbatch`: gres"),
        ("resources: {time_minutes: '1-02:30:10'}\n", "expected a number of minutes, found '1-02:30:10'; write 1591"),
        ("resources: {mem_gb: 512M}\n", "expected a number of gigabytes, found '512M'; write 0.5"),
        ("resources: {mem_gb: .inf}\n", "resources.mem_gb: must be a finite number"),
        ("poll_seconds: .inf\n", "poll_seconds: must be a finite number"),
        ("sbatch: {qos: long}\n", "sbatch.qos: repeats a key of the profile; state it as `qos`"),
        ("sbatch: {patition: gpu}\n", "unknown option of sbatch; state it as `partition`"),
        ("sbatch: {gres: 'gpu:2'}\n", "state it as `resources.gpus_per_node`: 2"),
        (
            "resources: {gpus_per_node: 2}\nsbatch: {gres: 'gpu:a100'}\n",
            "asks for 1 GPU and `resources.gpus_per_node`",
        ),
        (
            "resources: {mem_gb: 2}\nsbatch: {mem-per-cpu: 2G}\n",
            "mem-per-cpu: and `resources.mem_gb` exclude each other",
        ),
        ("sbatch: {job-name: x}\n", "sbatch.job-name: is set by the harness"),
        ("sbatch: {open_mode: false}\n", "sbatch.open_mode: is always append: a job that is requeued goes on with"),
        ("sbatch: {Q: true}\n", "sbatch.Q: would keep from the harness the number of its jobs"),
        ("sbatch: {M: other}\n", "sbatch.M: is another cluster's"),
        ("sbatch: {no-requeue: true}\n", "sbatch.no-requeue: has no effect beside `requeue`, which jobs are"),
        ("sbatch: {--exclude: x}\n", "by their long names, without dashes in front; write exclude"),
        ("sbatch: {mail-typ: FAIL}\n", "sbatch.mail-typ: unknown option of sbatch; did you mean 'mail-type'?"),
        ("sbatch: {nice: 1.5}\n", "for an option without a value, found 1.5; put it in quotes"),
        ("by_size: [{resources: {time_minutes: '1'}}]\n", "signal_seconds: 90 s before the time limit is before"),
        (
            "by_size: [{resources: {time_minutes: soon}}]\n",
            "mine.yaml:1: by_size.0.resources.time_minutes: expected an in",
        ),
        ("by_size:\n  - {resources: {time_minutes: 2}}\nsignal_seconds: 120\n", "mine.yaml:3: signal_seconds"),
        ("retry: {mem_gb: 2, max_mem_gb: 64}\n", "retry.mem_gb: expected a factor above 1 and up to 10, such as 2x"),
        ("retry: {mem_gb: 1x, max_mem_gb: 64}\n", "retry.mem_gb: expected a factor above 1 and up to 10, such as 2x"),
        ("retry: {time_minutes: 2x, max_time_minutes: 50}\n", "max_time_minutes: 50 is less than the 60 minutes of"),
        ("retry: {mem_gb: 2x}\n", "retry: mem_gb needs max_mem_gb: state the factor and the limit, or neither"),
        ("retry: {mem: 2x}\n", "mine.yaml:1: retry.mem: unknown key 'mem'"),
        ("\nretry: {mem_gb: 2x, max_mem_gb: 64}\n", "mine.yaml:2: retry.mem_gb: needs a memory to begin with"),
        (
            "resources: {mem_gb: 8}\nby_size: [{resources: {mem_gb: 80}}]\nretry: {mem_gb: 2x, max_mem_gb: 64}\n",
            "mine.yaml:3: retry.max_mem_gb: 64 GB is less than the 80 GB of `resources`",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert message in str(error.value)


def test_all_mistakes_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, "sbatch: {time: 60}\nby_size:\n  - {resources: {hours: 3}}\nsignal_seconds: 5000\n")
    starts = [line.split(": ")[:2] for line in str(error.value).split("\n")]
    places = ("1", "sbatch.time"), ("3", "by_size.0.resources.hours"), ("4", "signal_seconds")
    assert starts == [[f"{tmp_path}/mine.yaml:{line}", key] for line, key in places]


def test_a_sites_own_options_and_a_type_of_gpu_are_left_to_sbatch(tmp_path: Path) -> None:
    options = {"container-image": "x.sqsh", "gres": "gpu:a100:2,tmpdisk:10", "nodelist": "n1", "mail_type": "FAIL"}
    profile = load(tmp_path, f"resources: {{gpus_per_node: 2}}\nsbatch: {json.dumps(options)}\n")
    assert profile.sbatch == options


@pytest.mark.parametrize("text", ["module load cuda", "|\n  module load cuda\n", "[module load cuda]"])
def test_setup_is_a_list_or_a_text(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, f"setup: {text}").setup == ("module load cuda",)


@pytest.mark.parametrize("text", ["gpu,long", "[gpu, long]"])
def test_partitions_are_a_list_or_a_text(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, f"partition: {text}").partition == "gpu,long"


def test_rules_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    profile = load(
        tmp_path,
        "resources: {nodes: 2}\nby_size:\n  - {resources: {engine: deepspeed}}\n  - {resources: {nodes: 1}}\n",
    )
    with pytest.raises(UserError, match="by_size, rules for resnet8 taken together: engine deepspeed is for several"):
        profile.resources_for("resnet8", None)


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match="loopback"):
        profiles.load_profile("lopback")
