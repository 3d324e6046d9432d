"""The efficiency of jobs as text: a table of what they asked for and used, and lines for a profile."""

import json
from collections.abc import Sequence
from glob import escape
from statistics import fmean

from harness.phrases import plural
from harness.reporting.efficiency import GB, LEAST_JOBS, MARGIN, MOST_OF, SIGNAL_MINUTES, Asked, JobClass, by_models
from harness.reporting.escape import escape_markdown
from harness.reporting.tables.columns import PAIR, Lines
from harness.reporting.tables.formats import markdown_table

UNKNOWN = "-"
LONG_WAITING = 0.05  # the share of training from which on it is worth a word
_HEAD = (PAIR, "asked for", "jobs", "starts", "minutes, limit/median/most", "GB, asked/most", "cores, asked/used",
         "GPUs busy")  # fmt: skip


def table_lines(classes: Sequence[JobClass]) -> Lines:
    """Return the names of the columns and a line for each class of jobs."""
    return [_HEAD, *map(_line, classes)]


def _line(job_class: JobClass) -> tuple[str, ...]:
    asked, minutes, cores = job_class.asked, job_class.minutes, job_class.cores
    memory = (asked.memory and asked.memory / GB, job_class.memory and job_class.memory / GB)
    busy = job_class.gpu_percent
    return (
        models(job_class),
        _asked(job_class.packs, asked),
        str(len(job_class.jobs)),
        str(job_class.starts),
        _numbers(asked.minutes, job_class.median_minutes, max(minutes, default=None)),
        _numbers(*memory),
        _numbers(asked.cores, fmean(cores) if cores else None),
        "" if busy is None else f"{busy:.0f} %",
    )


def models(job_class: JobClass) -> str:
    """Return the models that a class's jobs load: ``teacher > student``, or one that is trained by itself."""
    return f"{job_class.teacher} > {job_class.student}" if job_class.teacher else job_class.student


def _asked(packs: int, asked: Asked) -> str:
    """Return what tells classes of the same models apart, besides the numbers in the other columns."""
    parts = [plural(packs, "seed")] * (packs > 1)
    parts += [plural(asked.nodes, "node")] if asked.nodes and asked.nodes > 1 else []
    parts += [plural(asked.processes, "process", "processes")] * (asked.processes > 1)
    parts.append(plural(asked.gpus, "GPU") if asked.gpus else "CPU")
    return ", ".join(parts)


def _numbers(*values: float | None) -> str:
    if all(value is None for value in values):
        return ""
    return " / ".join(UNKNOWN if value is None else _short(value) for value in values)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 99.5 else f"{value:.0f}"


def notes(classes: Sequence[JobClass], not_answered: str) -> list[str]:
    """Return what the table's numbers are, and which classes have too few jobs for advice."""
    texts = [f"SLURM's accounting did not answer ({not_answered}): the numbers are from the records."] * bool(
        not_answered
    )
    texts.append(
        "Minutes: of finished jobs, each with all its starts. GB: on a node, at most. Cores: of each process, on "
        f"average. {UNKNOWN}: not known."
    )
    if not not_answered and any(each.jobs[0].source == "records" for each in classes):
        texts.append("Jobs without a limit ran on this machine or are unknown to accounting: seen from their records.")
    for each in classes:
        if each.ends:
            ends = ", ".join(f"{count} {state.lower().replace('_', ' ')}" for state, count in each.ends.most_common())
            texts.append(f"{models(each)}: starts that ended before their job was done: {ends}.")
        if each.waiting is not None and each.waiting >= LONG_WAITING:
            texts.append(
                f"{models(each)}: waited for images {each.waiting:.0%} of the time: more cores would make it faster."
            )
        texts += [f"{models(each)}: {plural(count, 'job')} {retry}." for retry, count in each.retries.most_common()]
    few = [f"{models(each)} ({len(each.finished)})" for each in classes if each.advice is None]
    texts += [f"No advice from fewer than {LEAST_JOBS} finished jobs: {', '.join(few)}."] * bool(few)
    return texts


def profile_lines(classes: Sequence[JobClass]) -> list[str]:
    """Return what to put into a profile, as YAML; nothing where no class has advice."""
    advice = by_models(classes)
    if not advice:
        return []
    lines = [
        f"# minutes: {MOST_OF:.0%} of the finished jobs took no more, plus {MARGIN - 1:.0%};",
        f"#   at least {SIGNAL_MINUTES} more than the longest. Memory, cores: the most, plus {MARGIN - 1:.0%}.",
        "by_size:",
    ]
    for (student, teacher), resources in advice.items():
        values = ", ".join(f"{key}: {value}" for key, value in resources.resources().items())
        lines += [
            f"  - student: {_quoted(student)}",
            f"    teacher: {_quoted(teacher or '')}",
            f"    resources: {{{values}}}",
        ]
    return lines


def _quoted(name: str) -> str:
    """Return a name as a pattern in YAML that matches nothing else."""
    return json.dumps(escape(name), ensure_ascii=False)


def markdown(classes: Sequence[JobClass], not_answered: str) -> str:
    """Return table, notes and advice as Markdown."""
    lines = markdown_table([tuple(map(escape_markdown, line)) for line in table_lines(classes)])
    text = "\n".join([lines, *map(escape_markdown, notes(classes, not_answered)), ""])
    profile = "\n".join(profile_lines(classes))
    return f"{text}\n```yaml\n{profile}\n```\n" if profile else text
