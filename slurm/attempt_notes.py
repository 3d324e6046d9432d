"""The notes of attempts on what a job of SLURM asked for: part is known at its submission, part at each start."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from slurm import out_of_memory

if TYPE_CHECKING:
    from slurm.earlier_starts import EarlierStarts
    from slurm.profiles import Resources


def asked_at_submission(
    resources: "Resources", earlier: "EarlierStarts | None", run_ids: Iterable[str]
) -> dict[str, Any]:
    """Return what a job is submitted with, for its order, and what was too little for earlier starts of its runs."""
    too_little = earlier.too_little(run_ids, resources) if earlier else {}
    return {"minutes": resources.time_minutes, **too_little}


def asked_at_start(at_submission: Mapping[str, Any], log: str) -> dict[str, Any]:
    """Return what a start of a job asked for: as at its submission, but for what the job has changed by itself."""
    return {**at_submission, **out_of_memory.asked_memory(log)}
