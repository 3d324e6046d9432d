"""Comments in scripts that are shown and not submitted: what each is for, and what only a submission can state."""

from collections.abc import Iterable, Sequence

from harness.phrases import plural


def explained(script: str, number: str, tasks: Sequence[Sequence[Sequence[str]]], waits: Iterable[str]) -> str:
    """Return a script with comments below its first line; ``tasks``: of each, the runs of its jobs.

    sbatch --test-only refuses a job number that does not exist, so that such a dependency is a comment too.
    """
    first, _, rest = script.partition("\n")
    comments = [
        f"# ---------- script {number}: {plural(len(tasks), 'task')} ----------",
        "# To read, and for `sbatch --test-only`: the files of its jobs are written when `sweep` submits them.",
        *(f"# task {i}: {_work(jobs)}" for i, jobs in enumerate(tasks)),
        *(f"# --dependency=afterany: {task}, whose number is not known yet" for task in waits),
    ]
    return "\n".join([first, *comments, rest])


def _work(jobs: Sequence[Sequence[str]]) -> str:
    at_once = f"{len(jobs)} jobs at once, " if len(jobs) > 1 else ""
    return f"{at_once}{plural(sum(map(len, jobs)), 'run')}: {'; '.join(map(' '.join, jobs))}"
