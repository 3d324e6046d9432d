"""A teacher's logits, computed once: what one run has computed serves every later run of its pair and seed.

Which images an epoch shows, and how, is a function of (seed, epoch, index), so their logits are too. Kept are the ``k``
largest of each image in half precision, and what the others' softmax mass comes to. Runs that ask for it
(``teacher_top_k``) train on just that, whether it was read or has just been computed: their numbers do not depend on
what the store holds.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.store import files
from harness.training.distributed.ranks import Ranks

CHECKED = 0.001  # share of an epoch's batches whose logits are computed again
TOLERANCE = 2**-8  # of the largest logit: half precision twice; another image's logits differ by far more


class WrongLogits(Exception):
    """What was kept is not what the teacher says."""


@dataclass
class TopK:
    """Logits (N, classes), compressed."""

    classes: Tensor  # (N, k) int16: those with the largest logits
    values: Tensor  # (N, k) float16: these logits
    rest: Tensor  # (N,) float16: the logit that each other class is given; together they weigh what they did

    @classmethod
    def of(cls, logits: Tensor, k: int) -> "TopK":
        values, classes = logits.float().topk(k, dim=1)
        others = logits.float().scatter(1, classes, -torch.inf).logsumexp(1)
        left = logits.shape[1] - k
        rest = others - torch.tensor(float(left)).log() if left else torch.zeros_like(others)
        return cls(classes.to(torch.int16), values.half(), rest.half())

    def expanded(self, num_classes: int) -> Tensor:
        """(N, classes) float32."""
        logits = self.rest.float()[:, None].repeat(1, num_classes)
        return logits.scatter_(1, self.classes.long(), self.values.float())

    def rows(self, indices: Tensor) -> "TopK":
        return TopK(self.classes[indices], self.values[indices], self.rest[indices])

    def put(self, indices: Tensor, part: "TopK") -> None:
        for whole, rows in zip(vars(self).values(), vars(part).values(), strict=True):
            whole[indices] = rows


class CachedLogits:
    """The logits of a training set, epoch by epoch. ``folder`` holds those of one teacher, seed, way of augmenting and
    kind of machine."""

    def __init__(self, folder: Path, k: int, size: int, num_classes: int, ranks: Ranks):
        self._folder, self._k, self._size, self._num_classes = folder, min(k, num_classes), size, num_classes
        self._ranks = ranks
        self._kept: TopK | None = None  # read
        self._new: TopK | None = None  # computed, if from the epoch's first step on
        self._began = 0

    def begin(self, epoch: int, first_step: int, steps: int, device: torch.device) -> None:
        """Before the steps of an epoch from ``first_step`` on."""
        self._file = self._folder / f"epoch-{epoch:06d}.safetensors"
        self._began += 1
        # Another run may write the file just now; all processes must either read it or run the teacher. What is checked
        # differs from run to run, so that together they see more of it.
        told = [self._file.exists(), secrets.randbits(32)]
        kept, drawn = self._ranks.broadcast_json(f"logits {self._file} {self._began}", told)
        if kept:
            self._kept, self._new = self._read(device), None
        else:
            self._kept, self._new = None, self._empty(device) if first_step == 0 else None
        order = torch.randperm(steps, generator=torch.Generator().manual_seed(drawn)).tolist()
        self._checked = set(order[: max(1, round(CHECKED * steps))])

    def __call__(self, step: int, indices: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        """(B, classes) float32 for a batch; ``fresh`` runs the teacher.

        Raises:
            WrongLogits: what was kept differs from that; it is removed.
        """
        if self._kept is None:
            found = TopK.of(fresh(), self._k)
            if self._new is not None:
                self._new.put(indices, found)
            return found.expanded(self._num_classes)
        logits = self._kept.rows(indices).expanded(self._num_classes)
        if step in self._checked:
            expected = TopK.of(fresh(), self._k).expanded(self._num_classes)
            difference = float((logits - expected).abs().max() / expected.abs().max())
            if not difference <= TOLERANCE:
                self._file.unlink(missing_ok=True)
                raise WrongLogits(
                    f"{self._file}: differs from the teacher's logits by {difference:.2g} of the largest; it is "
                    "removed: run the sweep again with --retry-failed"
                )
        return logits

    def end(self) -> None:
        """After the last step of an epoch."""
        if self._new is not None and self._ranks.rank == 0:
            tensors = {k: v.cpu() for k, v in vars(self._new).items()}
            try:
                files.replace(self._file, lambda path: save_file(tensors, path))
            except files.DiskFull as e:
                print(f"the teacher's logits are not kept: {e}", flush=True)
        self._kept = self._new = None

    def _empty(self, device: torch.device) -> TopK:
        shape = (self._size, self._k)
        return TopK(
            torch.zeros(shape, dtype=torch.int16, device=device),
            torch.zeros(shape, dtype=torch.float16, device=device),
            torch.zeros(self._size, dtype=torch.float16, device=device),
        )

    def _read(self, device: torch.device) -> TopK:
        try:
            kept = TopK(**load_file(self._file, device=str(device)))
            if kept.values.shape == (self._size, self._k):
                return kept
            problem = f"logits of shape {tuple(kept.values.shape)}"
        except Exception as e:  # a damaged file makes the reader raise anything
            problem = f"{type(e).__name__}: {e}"
        raise WrongLogits(f"{self._file}: {problem}; remove it and run the sweep again with --retry-failed")
