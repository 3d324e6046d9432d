"""A rotation: packs of several seeds in one process, which take their training steps in turn.

On a GPU the work of one pack overlaps with that of the others. A rotation of one pack is that pack's training.
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from harness.training.cuda.memory import MemoryBudget
from harness.training.cuda.streams import PackStreams
from harness.training.recorder import Interrupted
from harness.training.stopwatch import SharedTime


def train_in_turn(
    packs: Mapping[int, Iterator[bool]], memory: MemoryBudget, shared_time: SharedTime, device: torch.device,
    on_failure: Callable[[int, Exception], None],
) -> None:  # fmt: skip
    """Train packs, given by their seeds as what ``Pack.turns`` yields, to their ends.

    A pack begins when the memory suffices for another member; until then it has not built any. If one fails, it leaves,
    and the others continue.

    Raises:
        Interrupted: the job must stop, and every pack that had begun has raised this too.
    """
    streams, left = PackStreams(device), dict(packs)
    begun: set[int] = set()
    waiting: set[int] = set()
    interrupted = False
    while left:
        for seed in [seed for seed in left if seed not in waiting]:
            turn = None
            try:
                if seed in begun or (not interrupted and memory.fits_another()):
                    begun.add(seed)
                    shared_time.join(seed)
                    with streams.of(seed):
                        turn = next(left[seed], None)
                elif not interrupted:
                    turn = False
            except Interrupted:
                interrupted = True
            except Exception as error:
                on_failure(seed, error)
            if not turn:
                shared_time.leave(seed)
            if turn is None:
                del left[seed]
            elif not turn:
                waiting.add(seed)
        if left and waiting == left.keys():
            if interrupted:
                break
            memory.reset()
            waiting.clear()
    if interrupted:
        raise Interrupted
