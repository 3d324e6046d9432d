"""Comments in scripts that are shown and not submitted: what each is for, and what only a submission can state."""

from collections.abc import Iterable, Sequence

from harness.phrases import plural


def explained(script: str, number: str, packs: Sequence[Sequence[str]], waits: Iterable[str]) -> str:
    """Return a script with comments below its first line; ``packs``: the runs of each task.

    sbatch --test-only refuses a job number that does not exist, so that such a dependency is a comment too.
    """
    first, _, rest = script.partition("\n")
    comments = [
        f"# ---------- script {number}: {plural(len(packs), 'task')} ----------",
        "# To read, and for `sbatch --test-only`: the files of its jobs are written when `sweep` submits them.",
        *(f"# task {i}: {plural(len(run_ids), 'run')}: {' '.join(run_ids)}" for i, run_ids in enumerate(packs)),
        *(f"# --dependency=afterany: {task}, whose number is not known yet" for task in waits),
    ]
    return "\n".join([first, *comments, rest])
