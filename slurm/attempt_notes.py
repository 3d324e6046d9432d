"""The notes of attempts on what a job of SLURM asked for: part is known at its submission, part at each start."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slurm import left_nodes, out_of_memory

if TYPE_CHECKING:
    from slurm.earlier_starts import EarlierStarts
    from slurm.profiles import Resources


def asked_at_submission(
    resources: "Resources", earlier: "EarlierStarts | None", run_ids: Sequence[str]
) -> dict[str, Any]:
    """Return what a job is submitted with, for its order, and what was wrong with earlier starts of its runs."""
    noted = earlier.noted(run_ids, resources) if earlier else {}
    return {"minutes": resources.time_minutes, **noted}


def asked_at_start(at_submission: Mapping[str, Any], log: str) -> dict[str, Any]:
    """Return what a start of a job asked for: as at its submission, but for what the job has changed by itself."""
    nodes = list(dict.fromkeys([*at_submission.get("avoided_nodes", ()), *left_nodes.left_nodes(log)]))
    avoided = {"avoided_nodes": nodes} if nodes else {}
    return {**at_submission, **out_of_memory.asked_memory(log), **avoided}
