"""The submission of an array of jobs: the script for sbatch, which submitit makes from a profile's options."""

import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.store import ownership
from slurm import containers, environment, sbatch_variables
from slurm.node_paths import in_shell
from slurm.profiles import Profile, Resources
from slurm.refusals import Refusal
from slurm.retry import Retry
from slurm.script_end import ScriptEnd


def check_path(folder: Path) -> None:
    """Check that submitit can work in a folder.

    Raises:
        UserError: its path holds what submitit replaces by a job's number.
    """
    if code := re.search("%[jtAa]", str(folder.absolute())):
        raise UserError(
            f"{folder}: SLURM's jobs cannot use a path with {code[0]!r}, which means a job's number to them"
        )


@dataclass(frozen=True)
class Submission:
    """An array of jobs that ask for the same resources."""

    name: str  # unique among all SLURM jobs
    folder: Path  # of its script, pickles and logs
    tasks: int
    profile: Profile
    resources: Resources
    search: Sequence[str]  # where jobs find modules: the copy of the code first
    read: Sequence[str]  # the store, and what jobs read outside it
    dependency: str
    max_parallel: int
    restarts: int  # after processes that were killed
    excluded_nodes: Sequence[str] = ()  # besides the profile's own

    def script(self) -> str:
        """Return the text that sbatch is given.

        Raises:
            UserError: SLURM is not installed here.
        """
        executor = self._executor()
        if self.tasks > 1:  # as submitit's executor of arrays does
            executor.parameters["map_count"] = self.tasks
        return str(executor._make_submission_file_text(executor._submitit_command_str, ""))

    def submit(self, function: Callable[..., None], orders: Sequence[Mapping[str, Any]]) -> str:
        """Submit jobs that call a function with an order each, and return the array's number.

        Raises:
            UserError: SLURM is not installed here.
            Refusal: sbatch takes none of them.
        """
        executor = self._executor()
        variables = sbatch_variables.in_force(self.profile)
        said = io.StringIO()  # submitit's advice, which is none where the jobs can be submitted later
        try:
            with environment.submission_environment(variables), ownership.writable_by_owner_alone():
                with redirect_stderr(said):
                    submitted = executor.map_array(function, orders)
        except Exception as e:  # submitit wraps sbatch's refusal in several types
            refusal = Refusal(str(e) or type(e).__name__)
            if not refusal.is_job_limit:
                print(said.getvalue(), end="", file=sys.stderr)
            raise refusal from None
        return str(submitted[0].job_id.split("_")[0])

    def _executor(self) -> Any:
        import submitit

        if shutil.which("srun") is None:
            raise UserError("srun: no such command; is this a SLURM login node?")
        profile, resources = self.profile, self.resources
        options: dict[str, Any] = {"chdir": self.search[0], "requeue": True, **profile.sbatch}
        command = self._python(str(options["chdir"] or os.getcwd()))
        executor = submitit.SlurmExecutor(folder=self.folder, python=command)
        further = {k: v for k, v in options.items() if v is not False}
        if self.dependency:  # besides the profile's own
            further["dependency"] = ",".join(filter(None, [str(further.get("dependency", "")), self.dependency]))
        if self._excluded:
            further["exclude"] = ",".join(self._excluded)
        srun_args = [
            "--kill-on-bad-exit=1",  # when one process is lost, end the others, which would wait for it
            "--open-mode=append",  # a requeued job's log says why
            f"--cpus-per-task={resources.cores_per_task}",
            "--export=ALL",  # also where the profile has `export: NONE`, which is for the submitter's variables
        ]
        if "%" in str(self.folder):  # to sbatch and srun the beginning of a job's number, as in submitit's own patterns
            stem = f"{self.folder.absolute()}/".replace("%", "%%") + ("%A_%a" if self.tasks > 1 else "%j")
            further["output"] = f"{stem}_0_log.out"
            srun_args += ["--output", f"{stem}_%t_log.out"]
        optional = {
            **{option: getattr(profile, option) for option in ("partition", "account", "qos", "constraint")},
            "mem": f"{int(resources.mem_gb * 1024)}MB" if resources.mem_gb else None,
            "gpus_per_node": resources.gpus_per_node or None,
        }
        executor.update_parameters(
            job_name=self.name,
            time=resources.time_minutes,
            nodes=resources.nodes,
            ntasks_per_node=resources.tasks_per_node,
            cpus_per_task=resources.cores_per_task,
            srun_args=srun_args,
            array_parallelism=-(-self.max_parallel // resources.jobs_per_node),  # rounded up to whole nodes
            signal_delay_s=profile.signal_seconds,
            stderr_to_stdout=True,
            wckey=None,  # submitit's own, which sites that track them refuse
            setup=[
                *self._end().lines(),
                *self._private_setup(),
                *profile.setup,
                *self._staging_setup(),
            ],
            additional_parameters=further,
            **{k: v for k, v in optional.items() if v is not None},
        )
        return executor

    def _end(self) -> ScriptEnd:
        retry, mem_gb = self.profile.retry or Retry(), self.resources.mem_gb
        on_one_node = self.resources.nodes == 1  # else it is not known which of them is to blame
        return ScriptEnd(
            self.folder,
            restarts=self.restarts,
            further_memory=retry.memory_steps(mem_gb)[1:] if mem_gb else [],
            most_left=retry.most_left if on_one_node else 0,
            most_excluded=(retry.exclude_nodes or 0) if on_one_node else 0,
            excluded=self._excluded,
        )

    @property
    def _excluded(self) -> list[str]:
        return [*filter(None, [str(self.profile.sbatch.get("exclude") or "")]), *self.excluded_nodes]

    def _python(self, folder: str) -> str:
        """Return the command that starts Python in a job, which begins in this folder."""
        path = shlex.quote(os.pathsep.join(self.search))
        if (container := self.profile.container) is None:
            return f"env PYTHONPATH={path} {self.profile.python or shlex.quote(sys.executable)}"
        store, *read = self.read
        paths = containers.mounted_paths(store, read, self.search, folder)
        words = container.words(paths, self._stages(), folder, self.profile.asks_for_gpus(self.resources))
        return f"{words} env PYTHONPATH={path} {self.profile.python or containers.PYTHON}"

    def _stages(self) -> list[str]:
        return [self.profile.stage.data] if self.profile.stage else []

    def _staging_setup(self) -> list[str]:
        """Return shell lines that make the folders which a container is to be given, on each of the job's nodes."""
        on_each = f"srun --nodes={self.resources.nodes} --ntasks-per-node=1 " if self.resources.nodes > 1 else ""
        folders = self._stages() if self.profile.container else []
        return [f"{on_each}mkdir -p {in_shell(folder)} || exit 1" for folder in folders]

    def _private_setup(self) -> list[str]:
        """Return shell lines by which a job gets this process's umask, and ends if others could have written its code.

        The job's files are submitted with a stricter umask, see ``ownership.writable_by_owner_alone``.
        """
        umask = f"{ownership.current_umask():04o}"
        lines = [f"umask {umask}; export SLURM_UMASK={umask}"]
        if not self.folder.exists() or ownership.is_private(self.folder.stat()):  # else the file system keeps no owners
            folder, code = shlex.quote(str(self.folder)), shlex.quote(self.search[0])
            others = f"\\( -perm /022 -o ! -user {os.geteuid()} ! -user 0 \\) -print -quit"
            pickles = f"find {folder} -maxdepth 1 \\( -type d -o -name '*_submitted.pkl' \\) {others}"
            lines += [
                f'others="$({pickles}; find {code} {others})"',
                'if [ -n "$others" ]; then echo "refused: others can write to this job\'s code: $others"; exit 1; fi',
            ]
        return lines
