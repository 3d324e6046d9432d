"""The order of a job of SLURM that runs several of a sweep's jobs at once, and what it calls with it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def node_order(orders: Sequence[dict[str, Any]], jobs_per_node: int) -> dict[str, Any]:
    """Return the order of a job of SLURM that runs these jobs' orders at once, and at most ``jobs_per_node``."""
    return {"jobs": list(orders), "jobs_per_node": jobs_per_node}


def jobs_of(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the orders of the jobs that run at once in a job of SLURM with this order."""
    return order.get("jobs", [order])


def jobs_per_node_of(order: Mapping[str, Any]) -> int:
    """Return how many jobs a job of SLURM with this order has asked for resources for."""
    return int(order.get("jobs_per_node", 1))


def function_of(order: Mapping[str, Any]) -> Callable[..., None]:
    """Return the function that a job of SLURM calls with this order."""
    if "jobs" in order:
        from slurm import node_jobs

        return node_jobs.run
    from slurm import entry

    return entry.run
