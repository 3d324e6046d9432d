"""A bench whose sweeps run on a real SLURM through the command line, in jobs that can die in every way."""

import json
import os
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from slurm.loopback import Loopback, packages
from tests.support.bench import SWEEP, USER_METHODS, Bench, until
from tests.support.cli import PATIENCE
from tests.support.warm_python import executable

ON_SLURM = [
    pytest.mark.skipif(
        bool(packages.missing()), reason=f"not installed: {', '.join(packages.missing())}; {packages.APT}"
    )
]
METHODS = ("kd", "crd")  # CRD's banks are what a resumed run can lose; a local queue's tests train all methods
SLOW = {"slow": {"use": f"{USER_METHODS}:Sleeps"}}
ARRAY = 8  # the most tasks of one array
COMMANDS = ("sbatch", "squeue", "sacct", "sacctmgr", "scontrol", "scancel")


# No container: it checks what it is given, and starts the command where it is, without SLURM's commands.
APPTAINER = """#!/bin/bash
[ "$1" = exec ] || exit 64
shift
places=()
while [[ "$1" == --* ]]; do
    case "$1" in
        --bind)
            IFS=: read -r source place options <<< "$2"
            [ -e "$source" ] || { echo "no such mount: $source" >&2; exit 65; }
            places+=("$place")
            shift 2 ;;
        --pwd) cd "$2" || exit 66; shift 2 ;;
        *) echo "unknown option: $1" >&2; exit 64 ;;
    esac
done
echo "$LOADED $1" >> CALLS
shift
for word in "$@"; do
    for path in $(tr : ' ' <<< "${word#PYTHONPATH=}"); do
        for place in "${places[@]}" "$EXECUTABLE"; do
            [[ "$path" != /* || "$path/" == "$place"/* ]] && continue 2
        done
        echo "not mounted: $path" >&2
        exit 67
    done
done
export PATH=INSIDE
exec "$@"
"""


@dataclass
class ClusterBench(Bench):
    """A bench whose sweeps run on the loopback cluster, in jobs that work in its folder and read its file ``slow``."""

    cluster: Loopback = field(kw_only=True)
    profile: dict[str, Any] = field(default_factory=dict)
    sbatch: dict[str, Any] = field(default_factory=dict)  # long options
    variables: dict[str, str] = field(default_factory=dict)  # of the user's shell

    @property
    def calls_file(self) -> Path:
        return self.folder / "calls"

    def _process_options(self) -> dict[str, Any]:
        options = super()._process_options()
        path = f"{self.folder / 'bin'}{os.pathsep}{packages.search_path()}"
        return {**options, "env": {**options["env"], **self.cluster.env, "PATH": path, **self.variables}}

    def command(self, name: str, *args: str, file: str | None = "sweep.yaml") -> list[str]:
        resources = {"time_minutes": 10, "cpus_per_task": 1, "mem_gb": 1, **self.profile.get("resources", {})}
        options = {"chdir": str(self.folder), **self.sbatch}
        sbatch_options = {k: v for k, v in options.items() if v is not None}
        profile = {
            "signal_seconds": 20,
            "poll_seconds": 0.5,
            "python": executable(),
            **self.profile,
            "resources": resources,
            "sbatch": sbatch_options,
        }
        (self.folder / "my.yaml").write_text(yaml.safe_dump(profile))
        return super().command(name, *args, *(["--cluster", "my.yaml"] if name == "sweep" else []), file=file)

    def wrap(self, program: str, script: str) -> None:
        """Replace a SLURM command by a script, in which ``$REAL`` is the command."""
        path = self.folder / "bin" / program
        path.parent.mkdir(exist_ok=True)
        real = shutil.which(program, path=packages.search_path())
        path.write_text(f"#!/bin/bash\nREAL={shlex.quote(str(real))}\n{script}\n")
        path.chmod(0o755)

    def put_in_container(self, image: str) -> Path:
        """Let jobs start by a stand-in for apptainer, and return the file of its calls."""
        calls, inside, temporary = (self.folder / name for name in ("contained", "inside", "temporary"))
        for folder in (inside, temporary, self.folder / "bin"):
            folder.mkdir()
        (inside / "env").symlink_to(shutil.which("env") or "")
        text = (
            APPTAINER.replace("CALLS", str(calls)).replace("INSIDE", str(inside)).replace("$EXECUTABLE", executable())
        )
        program = self.folder / "bin/apptainer"
        program.write_text(text.replace("$EXECUTABLE", executable()))
        program.chmod(0o755)
        self.variables = {**self.variables, "TMPDIR": str(temporary)}  # else all of /tmp is mounted
        self.profile = {**self.profile, "container": {"image": image}}
        return calls

    def count_calls(self) -> None:
        """Write a line to ``calls_file`` for each SLURM command that is called outside jobs from now on."""
        for program in COMMANDS:
            note = f"echo {program} >> {shlex.quote(str(self.calls_file))}"
            self.wrap(program, f'[ -n "$SUBMITIT_EXECUTOR" ] || {note}\nexec "$REAL" "$@"')

    def calls(self) -> Counter[str]:
        return Counter(self.calls_file.read_text().split()) if self.calls_file.exists() else Counter()

    def clean_up(self) -> None:
        super().clean_up()
        if job_ids := [job for (job,) in self.jobs("%i")]:  # no other test uses the cluster
            self.cluster.client("scancel", *job_ids)
        until(lambda: not self.jobs("%i"))

    def jobs(self, columns: str) -> list[list[str]]:
        text = self.cluster.client("squeue", "--noheader", "--array", f"--format={columns}")
        return [line.split("|") for line in text.splitlines()]

    def jobs_left(self) -> list[str]:
        submissions = self.submissions()
        return [job for job, name in self.jobs("%i|%j") if name in submissions]

    def submissions(self) -> dict[str, dict[str, Any]]:
        """Return name -> content of a submission's file."""
        notes = (json.loads(p.read_text()) for p in self.store.submissions.glob("*.json"))
        return {note["name"]: note for note in notes}

    def job_of(self, run_id: str) -> str:
        """Return the pending or running job (12, 12_3) that is to train a run."""
        live = {job for (job,) in self.jobs("%i")}
        jobs = [
            job
            for note in self.submissions().values()
            for i, pack in enumerate(note["packs"])
            if run_id in pack and (job := f"{note['job_id']}_{i}" if len(note["packs"]) > 1 else note["job_id"]) in live
        ]
        assert len(jobs) == 1, jobs
        return jobs[0]

    def states_of(self, job: str) -> set[str]:
        """Return the states of an array's tasks and their steps in the accounting."""
        return set(self.cluster.client("sacct", "--noheader", f"--jobs={job}", "--format=State").split())

    def states(self) -> dict[str, dict[str, Any]]:
        """Return label -> its row in ``status --json``, run in this process: tests wait for what it says."""
        with mock.patch.dict(os.environ, self._process_options()["env"]):
            return {row["label"]: row for row in json.loads(self.call("status", "--json").out)}

    def efficiency(self) -> dict[str, Any]:
        """Return what ``report --efficiency --json`` prints, run in this process."""
        with mock.patch.dict(os.environ, self._process_options()["env"]):
            return json.loads(self.call("report", "--efficiency", "--json").out)

    def node_of(self, job: str) -> str:
        return self.cluster.client("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()

    def release(self) -> None:
        """Release jobs that were submitted with ``hold``."""
        self.sbatch = {k: v for k, v in self.sbatch.items() if k != "hold"}
        for note in self.submissions().values():
            self.cluster.client("scontrol", "release", note["job_id"])

    def preempt(self) -> None:
        """Occupy every node with a short job of higher priority, which preempts jobs of low partitions."""
        everything = ("--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null")
        job = self.cluster.client("sbatch", "--parsable", *everything, "--wrap=true").strip()
        until(lambda: [job] not in self.jobs("%i"))  # sbatch --wait would poll ever more rarely

    def mid_run(self, run_id: str) -> bool:
        """Return whether a run is in training and has a checkpoint."""
        running = self.store.is_running(run_id) and self.store.progress(run_id).get("fraction", 0) > 0.02
        return running and any(self.store.checkpoints(run_id).glob("epoch-*"))

    def attempts(self, run_id: str) -> int:
        return len(self.store.attempts(run_id))

    def fraction(self, run_id: str) -> float:
        return self.store.progress(run_id)["fraction"]

    def goes_on(self, run_id: str, before: float, attempt: int = 2) -> None:
        """Wait for the first step of a further attempt and check that it comes after those of the one before."""
        until(lambda: self.attempts(run_id) == attempt)
        until(lambda: self.store.progress(run_id)["at"] > self.store.attempts(run_id)[-1]["at"])
        assert self.fraction(run_id) >= before > 0

    def slow(self, seconds: float) -> None:
        (self.folder / "slow").write_text(str(seconds))

    def quick(self) -> None:
        (self.folder / "slow").unlink()


def small(*seeds: int, **more: object) -> dict[str, Any]:
    """Return the small sweep with these seeds, two of its methods and further ones."""
    return {**SWEEP, "methods": {**{m: SWEEP["methods"][m] for m in METHODS}, **more}, "seeds": list(seeds)}


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a command, which must succeed, and return what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out + err


def recorded_once(bench: Bench) -> None:
    """Check that every run of the plan has one record, and that there is no other."""
    assert bench.store.done_ids() == set(bench.plan().plan.runs)
    assert not bench.store.failed_ids()
    assert len(list(bench.store.records.iterdir())) == len(bench.plan().plan.runs)
