"""Epochs of a fixed number of steps, which are not passes over the training set, for schedules stated in steps."""

from collections.abc import Generator
from contextlib import closing, nullcontext
from itertools import islice

from harness.data.load.loader import LoadedBatch, Loader, Waiting


class FixedEpochs:
    """The endless stream of a loader's passes, cut into epochs of ``steps`` batches."""

    def __init__(self, loader: Loader, steps: int):
        self._loader, self._steps, self.batch_size = loader, steps, loader.batch_size

    def __len__(self) -> int:
        return self._steps

    def epoch(
        self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext
    ) -> Generator[LoadedBatch, None, None]:
        """Yield batches like ``Loader.epoch``. Epochs below 0 read passes below 0."""
        per_pass, end = len(self._loader), (epoch + 1) * self._steps
        at = epoch * self._steps + first_step
        while at < end:
            passed, step = divmod(at, per_pass)
            count = min(per_pass - step, end - at)
            with closing(self._loader.epoch(passed, step, waiting)) as batches:
                yield from islice(batches, count)
            at += count
