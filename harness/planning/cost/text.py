"""Estimates as text."""

from collections.abc import Callable, Collection

from harness.console.terminal import duration
from harness.phrases import plural, some
from harness.planning.cost.estimate import Basis, Estimate
from harness.planning.cost.interval import Interval


def estimate_lines(estimate: Estimate, cluster: bool = False) -> list[str]:
    """Return the lines that ``sweep`` prints of an estimate; ``cluster``: the runs are for nodes of a cluster."""
    lines = []
    if estimate.elapsed_s and estimate.device_s:
        sources = "; ".join(map(_source, estimate.bases))
        lines.append(f"time: {duration_range(estimate.elapsed_s, estimate.device_s, estimate.unit)}; {sources}")
    if estimate.runs_of_unknown_time:
        lines.append(
            f"time unknown: {_runs(estimate.runs_of_unknown_time)}: no similar run in the store yet; "
            + ("--plan --probe in a job on a node measures a few steps" if cluster else "--probe measures a few steps")
        )
    if estimate.left_bytes and estimate.peak_bytes:
        stays = format_interval(estimate.left_bytes, format_bytes)
        lines.append(f"disk: {stays} in the end, at most {format_bytes(estimate.peak_bytes)} meanwhile")
    if estimate.runs_of_unknown_size:
        lines.append(f"disk unknown: {_runs(estimate.runs_of_unknown_size)}")
    return lines


def duration_range(elapsed_s: Interval, device_s: Interval, unit: str) -> str:
    """Return ``3:06:00 (2:30:00 to 4:00:00), 6.2 (5 to 8) core-hours``."""
    return f"{format_interval(elapsed_s, duration)}, {format_interval(device_s, format_hours)} {unit}-hours"


def format_interval(interval: Interval, text: Callable[[float], str]) -> str:
    return f"{text(interval.mid)} ({text(interval.low)} to {text(interval.high)})"


def format_hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.4f}" if hours < 0.01 else f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def format_bytes(count: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _source(basis: Basis) -> str:
    runs = plural(basis.runs, "run")
    if not basis.most:
        return f"{runs} from {basis.source}"
    past = f"{basis.least}" if basis.least == basis.most else f"{basis.least} to {basis.most}"
    return f"{runs} from {past} past run{'' if basis.most == 1 else 's'} of {basis.source}"


def _runs(labels: Collection[str]) -> str:
    return f"{plural(len(labels), 'run')} ({some(labels, shown=1)})"
