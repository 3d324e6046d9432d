"""A function run by several ranks at once, in processes that need not import torch again."""

from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

from tests.support.bench import forkserver


def run_ranks(function: Callable[..., None], arguments: tuple[Any, ...], world: int) -> None:
    """Run ``function(rank, *arguments)`` in ``world`` processes to their ends. An error in one is raised here."""
    # Without effect when a test has started the server before, with modules of its own.
    forkserver.set_forkserver_preload(["harness.models.detection.build", function.__module__])
    mp.start_processes(function, arguments, nprocs=world, start_method="forkserver")
