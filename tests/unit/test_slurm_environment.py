"""Variables of SLURM in a user's shell: which its commands see."""

import os

import pytest

from slurm import commands, environment, sbatch_variables
from slurm.profiles import Profile

SHELL = {
    "SQUEUE_STATES": "RUNNING",
    "SACCT_FORMAT": "JobID",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_NTASKS": "8",  # of an interactive job around
    "SRUN_CPUS_PER_TASK": "8",
    "SLURM_CONF": "/etc/slurm.conf",
    "SBATCH_ACCOUNT": "kd\n",
    "SBATCH_PARTITION": "long",
    "SBATCH_QOS": "",
    "SBATCH_GRES": "gpu:1",
    "SBATCH_MEM_PER_CPU": "2G",
    "SBATCH_OUTPUT": "mine.txt",
    "SBATCH_BREW": "tea",
}


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("S", "KD"))]:
        monkeypatch.delenv(name)
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)


def of_slurm(environ: object) -> set[str]:
    return {name for name in dict(environ) if name in SHELL}  # type: ignore[call-overload]


def test_the_profile_wins_over_variables_of_sbatch_and_others_count() -> None:
    profile = Profile.model_validate(
        {"partition": "main", "by_size": [{"resources": {"mem_gb": 4}}], "sbatch": {"gpus_per_task": 1}}
    )
    assert sbatch_variables.in_force(profile) == {"SBATCH_ACCOUNT": "kd\n"}
    assert sbatch_variables.note(profile) == (
        r"variables of sbatch in force: SBATCH_ACCOUNT=kd\n; not in force: SBATCH_BREW=tea (not known to the harness), "
        "SBATCH_GRES=gpu:1 (the profile states sbatch.gpus_per_task), "
        "SBATCH_MEM_PER_CPU=2G (the profile states resources.mem_gb), "
        "SBATCH_OUTPUT=mine.txt (the harness states its own), SBATCH_PARTITION=long (the profile states partition)"
    )
    everything = sbatch_variables.in_force(Profile())
    assert everything.keys() == {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_GRES", "SBATCH_MEM_PER_CPU"}


def test_commands_see_only_what_leads_them_to_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_slurm(environment.query_environment()) == {"SLURM_CONF"}
    with environment.submission_environment({"SBATCH_ACCOUNT": "kd"}):
        assert of_slurm(os.environ) == {"SLURM_CONF", "SBATCH_ACCOUNT"}
    assert of_slurm(os.environ) == SHELL.keys()
    assert "SQUEUE_STATES" not in commands._output("env")


def test_an_account_without_a_name_finds_its_jobs_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue takes no number that no account has."""
    queries: list[tuple[str, ...]] = []

    def output(*command: str) -> str:
        queries.append(command)
        return "7_0|kd-a|PENDING|4242424|Priority\n"

    monkeypatch.setattr(os, "geteuid", lambda: 4242424)
    monkeypatch.setattr(commands, "_output", output)
    (job,) = commands.squeue({commands.user(), "root"})
    assert job.user == commands.user() == "4242424"
    assert not any(word.startswith("--user") for word in queries[0])
