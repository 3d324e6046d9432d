"""The end of a job's script: where the job ended with an error, it goes back into the queue or notes its exit code.

The processes of the job cannot do it: they were killed, or Python did not even start.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm import containers, environment, out_of_memory
from slurm.environment import JOB_IN_SHELL

AT_ONCE_SECONDS = 60  # a job that ends in less, by an error of its node's, say, has not worked there
WAIT_SECONDS = 180  # of that job, for others to show that they work elsewhere
BEGAN_MINUTES, STARTING_MINUTES = 7 * 24 * 60, 10  # for which what other jobs have noted counts
# Exit codes of ends by a signal that may be the node's fault: ILL (an older processor), ABRT, BUS, FPE, SEGV; and KILL.
_CRASHES, _KILLED = "132|134|135|136|139", 137
# Files of a job in its folder, by what follows its number.
EXIT_CODE, PLACE, LEFT = "_exit_code", "_place", "_left"


@dataclass(frozen=True)
class ScriptEnd:
    """The lines by which the jobs of an array end, where they end with an error."""

    folder: Path  # of the array, named by ``array_jobs.new_name``
    restarts: int  # after processes that were killed
    further_memory: Sequence[float]  # GB of further starts, if one after the other runs out of memory
    most_left: int  # nodes that a job leaves at most, where it ended at once while others work elsewhere
    most_excluded: int  # nodes that the queue may avoid without that proof, see ``early_ends``
    excluded: Sequence[str]  # nodes that the jobs avoid from the beginning

    def lines(self) -> list[str]:
        """Return the lines for the beginning of the script.

        An end by an error code is noted, and so is a crash before the job has begun its work. A process that was killed
        is started again, this often; with more memory, if that was the reason. A job that ended at once, while others
        of its sweep work on other nodes, leaves its node: it is started again elsewhere.
        """
        folder = shlex.quote(str(self.folder))
        files = f"{folder}/{JOB_IN_SHELL}"
        place, left, here = f"{files}{PLACE}", f"{files}{LEFT}", '"$SLURMD_NODENAME"'
        of_sweep = f"{self.folder.name.rsplit('-', 2)[0]}-????????-????????"  # kd-NAME, its queue, its array
        minutes = f"$([ $1 = began ] && echo {BEGAN_MINUTES} || echo {STARTING_MINUTES})"
        marks = (
            f"find {shlex.quote(str(self.folder.parent))} -mindepth 2 -maxdepth 2 -mmin -{minutes}"
            f' -path {shlex.quote(f"*/{of_sweep}/*{PLACE}")} -exec sed -n "s/^$1 //p" {{}} +'
        )
        excluded = "".join(f"{node}," for node in self.excluded)
        requeue = "kd_requeue"
        if self.further_memory:
            requeue += f" && {out_of_memory.raise_in_shell(self.folder, self.further_memory)}"
        return [
            environment.SET_JOB_IN_SHELL,
            f'rm -f {files}{EXIT_CODE}; echo "starting $SLURMD_NODENAME" > {place}',
            *out_of_memory.count_in_shell(self.folder),
            "# A job that is being cancelled is not running. One that is suspended asks again when it goes on.",
            "kd_is_running() {",
            "  for _ in $(seq 60); do",
            f"    kd_state=$(squeue --noheader --jobs={JOB_IN_SHELL} --format=%T)",
            '    [ "$kd_state" = SUSPENDED ] && sleep 1 || break',
            "  done",
            '  [ "$kd_state" = RUNNING ]',
            "}",
            "# SLURM ends the script of a job that was requeued by TERM.",
            f"kd_requeue() {{ trap '' TERM; scontrol requeue {JOB_IN_SHELL}; }}",
            f"kd_left() {{ cut -sd' ' -f1 {left} 2>/dev/null; }}",
            "# Whether a job of the sweep is 'starting' or has 'began' on a node that this one has not left.",
            f"kd_elsewhere() {{ {marks} 2>/dev/null | grep -qvxF -f <(echo {here}; kd_left); }}",
            "kd_should_leave() {",
            f"  [ $SECONDS -lt {AT_ONCE_SECONDS} ] && [ $(kd_left | wc -l) -lt {self.most_left} ] || return 1",
            f'  ! kd_left | grep -qxF {here} && [ "$(kd_kills)" -le "$kd_earlier_kills" ] || return 1',
            f"  case $code in ?|??|10?|11?|12[0-7]|{_CRASHES}|{_KILLED}) ;; *) return 1;; esac",
            "  until kd_elsewhere began; do",
            f"    [ $SECONDS -lt {WAIT_SECONDS} ] && kd_elsewhere starting || return 1",
            "    sleep 1",
            "  done",
            "}",
            "# Whether a further start would end in the same way.",
            "kd_is_final() {",
            f"  [ $code -ne {containers.REQUEUE_CODE} ] || return 1",
            f'  case $code in {_CRASHES}) [ "$kd_was" != starting ] || return 0;; esac',
            f"  [ $code -lt 128 ] || [ ${{SLURM_RESTART_COUNT:-0}} -ge {self.restarts} ]",
            "}",
            "kd_end() {",
            f"  code=$?; [ $code -gt 0 ] && {environment.UNSET_IN_SHELL} || return",
            f"  kd_was=$(sed -n 's/ .*//p' {place}); rm -f {place}",
            "  if kd_should_leave && kd_is_running; then",
            f'    echo "$SLURMD_NODENAME $code {self.most_left}" >> {left}',
            f"    kd_requeue && scontrol update jobid={JOB_IN_SHELL} ExcNodeList={excluded}$(kd_left | paste -sd,)"
            ' && echo "ended at once on $SLURMD_NODENAME, while other jobs work elsewhere: so will the next start"',
            "  elif kd_is_final; then",
            f"    kd_is_running && echo $code $SLURMD_NODENAME {self.most_excluded} > {files}{EXIT_CODE}",
            "  else",
            f"    kd_is_running && {requeue}",
            "  fi",
            "}",
            "trap kd_end EXIT",
        ]
