"""The summary of a watched sweep: what stays on the screen when it ends."""

from collections import Counter
from collections.abc import Iterator

from harness.console.terminal import duration
from harness.phrases import plural
from harness.planning.cost import text
from harness.planning.cost.submissions import read_submissions
from harness.planning.sweep_progress import SweepProgress
from harness.store.failure_causes import by_cause


def summary_lines(progress: SweepProgress, part: str, with_causes: bool) -> list[str]:
    """Return lines about a sweep whose watching ends, with the causes of its failures where no table follows.

    ``part``: what of a longer work it was, if any.
    """
    return [_states(progress, part), *_times(progress), *(_failures(progress) if with_causes else ())]


def _states(progress: SweepProgress, part: str) -> str:
    counts = progress.counts
    diverged = sum(run.diverged for run in progress.ended.values())
    parts = [f"{counts['done']} of {plural(sum(counts.values()), 'run')} done"]
    parts += [f"{diverged} of them diverged"] if diverged else []
    parts += [f"{counts['failed']} failed"] if counts["failed"] else []
    parts += [f"{len(progress.open)} not trained"] if progress.open else []
    name = progress.planned.name + (f", {part}" if part else "")
    return f"{name}{'' if progress.watched else ' is finished'}: {', '.join(parts)}"


def _times(progress: SweepProgress) -> Iterator[str]:
    """Yield the time that the runs took that were trained meanwhile, beside the estimate of before, and the slowest."""
    runs = {k: run for k, run in progress.ended.items() if k in progress.watched}
    if not runs:
        return
    took = max(run.ended for run in runs.values()) - progress.began
    estimated = _estimated(progress)
    yield f"took {duration(max(0.0, took))}" + (f", estimated {estimated}" if estimated else "")
    slowest = max(runs, key=lambda k: runs[k].seconds)
    if len(runs) > 1:
        yield f"slowest: {progress.labels.get(slowest, slowest)}, {duration(runs[slowest].seconds)}"


def _estimated(progress: SweepProgress) -> str:
    """Return the estimate of the submission of just these runs; empty where there is none, or it knew too little."""
    submissions = reversed(read_submissions(progress.store, progress.planned.name))
    own = next((s for s in submissions if set(s.run_ids) == progress.watched), None)
    if own is None or own.elapsed_s is None:
        return ""
    unknown = f", without {plural(own.unknown, 'run')} of unknown time" if own.unknown else ""
    return text.format_interval(own.elapsed_s, duration) + unknown


def _failures(progress: SweepProgress) -> Iterator[str]:
    failed = [k for k, state in progress.states.items() if state == "failed"]
    known = [failure for k in failed if (failure := progress.store.failure(k))]
    for failures in by_cause(known):
        labels = Counter(progress.labels[failure.run_id] for failure in failures)
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"{len(failures)} failed: {failures[0].kind}: {failures[0].cause} ({next(iter(labels))}{more})"
