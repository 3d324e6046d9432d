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
# Signals of an end that may be the node's fault: ILL (an older processor), ABRT, BUS, FPE, KILL, SEGV.
_FAULTS = "132|134|135|136|137|139"
# Files of a job in its folder, by what follows its number.
EXIT_CODE, PLACE, LEFT = "_exit_code", "_place", "_left"


@dataclass(frozen=True)
class ScriptEnd:
    """The lines by which the jobs of an array end, where they end with an error."""

    folder: Path
    restarts: int  # after processes that were killed
    further_memory: Sequence[float]  # GB of further starts, if one after the other runs out of memory
    most_left: int  # nodes that a job leaves at most, where it ended at once while others work elsewhere
    most_excluded: int  # nodes that the queue may avoid without that proof, see ``early_ends``
    excluded: Sequence[str]  # nodes that the jobs avoid from the beginning

    def lines(self) -> list[str]:
        """Return the lines for the beginning of the script.

        An end by an error code is noted. A process that was killed is started again, this often; with more memory, if
        that was the reason. A job that ended at once, while others of its array work on other nodes, leaves its node:
        it is started again elsewhere.
        """
        folder = shlex.quote(str(self.folder))
        files = f"{folder}/{JOB_IN_SHELL}"
        place, left, here = f"{files}{PLACE}", f"{files}{LEFT}", '"$SLURMD_NODENAME"'
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
            "# Whether a job of the array is 'starting' or has 'began' on a node that this one has not left.",
            f'kd_elsewhere() {{ sed -n "s/^$1 //p" {folder}/*{PLACE} 2>/dev/null'
            f" | grep -qvxF -f <(echo {here}; kd_left); }}",
            "kd_should_leave() {",
            f"  rm -f {place}",
            f"  [ $SECONDS -lt {AT_ONCE_SECONDS} ] && [ $(kd_left | wc -l) -lt {self.most_left} ] || return 1",
            f'  ! kd_left | grep -qxF {here} && [ "$(kd_kills)" -le "$kd_earlier_kills" ] || return 1',
            f"  case $code in ?|??|10?|11?|12[0-7]|{_FAULTS}) ;; *) return 1;; esac",
            "  until kd_elsewhere began; do",
            f"    [ $SECONDS -lt {WAIT_SECONDS} ] && kd_elsewhere starting || return 1",
            "    sleep 1",
            "  done",
            "}",
            "kd_end() {",
            f"  code=$?; [ $code -gt 0 ] && {environment.UNSET_IN_SHELL} || return",
            "  if kd_should_leave && kd_is_running; then",
            f'    echo "$SLURMD_NODENAME $code" >> {left}',
            f"    kd_requeue && scontrol update jobid={JOB_IN_SHELL} ExcNodeList={excluded}$(kd_left | paste -sd,)"
            ' && echo "ended at once on $SLURMD_NODENAME, while other jobs work elsewhere: so will the next start"',
            f"  elif [ $code -lt 128 ] || {{ [ $code -ne {containers.REQUEUE_CODE} ]"
            f" && [ ${{SLURM_RESTART_COUNT:-0}} -ge {self.restarts} ]; }}; then",
            f"    kd_is_running && echo $code $SLURMD_NODENAME {self.most_excluded} > {files}{EXIT_CODE}",
            "  else",
            f"    kd_is_running && {requeue}",
            "  fi",
            "}",
            "trap kd_end EXIT",
        ]
