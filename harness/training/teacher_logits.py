"""A cache of the teacher's logits: those that one run computed serve every later run of its pair and seed.

The images of an epoch and their augmentation are a function of (seed, epoch, index), so their logits are too. The cache
holds each image's ``k`` largest logits in half precision and the softmax mass of the others. Runs that ask for it
(``teacher_top_k``) train on just that, whether it was read or has just been computed: their numbers do not depend on
the content of the store.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from harness.store import checksums, files
from harness.training.distributed.ranks import Ranks

CHECKED = 0.001  # share of an epoch's batches whose logits are computed again
TOLERANCE = 2**-8  # of the largest logit: half precision twice; another image's logits differ by far more


class WrongLogits(Exception):
    """Cached logits that are not the teacher's."""


@dataclass
class TopK:
    """Logits (N, classes), compressed."""

    classes: Tensor  # (N, k) int16: those with the largest logits
    values: Tensor  # (N, k) float16: these logits
    rest: Tensor  # (N,) float16: one logit for every other class, by which together they keep their softmax mass

    @classmethod
    def of(cls, logits: Tensor, k: int) -> "TopK":
        """Compress logits (N, classes) to the ``k`` largest of each row."""
        values, classes = logits.float().topk(k, dim=1)
        others = logits.float().scatter(1, classes, -torch.inf).logsumexp(1)
        other_classes = logits.shape[1] - k
        rest = others - torch.tensor(float(other_classes)).log() if other_classes else torch.zeros_like(others)
        return cls(classes.to(torch.int16), values.half(), rest.half())

    def expanded(self, num_classes: int) -> Tensor:
        """Return logits (N, classes) in float32."""
        logits = self.rest.float()[:, None].repeat(1, num_classes)
        return logits.scatter_(1, self.classes.long(), self.values.float())

    def rows(self, indices: Tensor) -> "TopK":
        """Return these rows."""
        return TopK(self.classes[indices], self.values[indices], self.rest[indices])

    def put(self, indices: Tensor, rows: "TopK") -> None:
        """Replace these rows."""
        for tensor, values in zip(vars(self).values(), vars(rows).values(), strict=True):
            tensor[indices] = values


class CachedLogits:
    """The teacher's logits for a training set, a file for each epoch.

    ``folder`` is for one teacher, seed, augmentation and kind of machine.
    """

    def __init__(self, folder: Path, k: int, size: int, num_classes: int, ranks: Ranks):
        self._folder, self._k, self._size, self._num_classes = folder, min(k, num_classes), size, num_classes
        self._ranks = ranks
        self._read: TopK | None = None  # the epoch's logits, if they were in the cache
        self._computed: TopK | None = None  # the epoch's logits, if all of them are computed here
        self._epochs_begun = 0

    def begin(self, epoch: int, first_step: int, steps: int, device: torch.device) -> None:
        """Prepare an epoch of ``steps`` steps; only those from ``first_step`` on will run."""
        self._file = self._folder / f"epoch-{epoch:06d}.safetensors"
        self._epochs_begun += 1
        # Another run may write the file right now, but all ranks must either read it or run the teacher. Each run draws
        # other batches to check, so that together they check more of them.
        drawn = [self._file.exists(), secrets.randbits(32)]
        cached, check_seed = self._ranks.broadcast_json(drawn)
        self._read = self._load(device) if cached else None
        self._computed = self._empty(device) if not cached and first_step == 0 else None
        order = torch.randperm(steps, generator=torch.Generator().manual_seed(check_seed)).tolist()
        self._checked = set(order[: max(1, round(CHECKED * steps))])

    def __call__(self, step: int, indices: Tensor, teacher: Callable[[], Tensor]) -> Tensor:
        """Return a batch's logits (B, classes) in float32; ``teacher`` computes them.

        Raises:
            WrongLogits: the cached ones differ from the teacher's; their file is removed.
        """
        if self._read is None:
            logits = TopK.of(teacher(), self._k)
            if self._computed is not None:
                self._computed.put(indices, logits)
            return logits.expanded(self._num_classes)
        cached = self._read.rows(indices).expanded(self._num_classes)
        if step in self._checked:
            expected = TopK.of(teacher(), self._k).expanded(self._num_classes)
            difference = float((cached - expected).abs().max() / expected.abs().max())
            if not difference <= TOLERANCE:
                self._file.unlink(missing_ok=True)
                raise WrongLogits(
                    f"{self._file}: differs from the teacher's logits by {difference:.2g} of the largest; it is "
                    "removed: run the sweep again with --retry-failed"
                )
        return cached

    def end(self) -> None:
        """Write the epoch's logits to the cache, if all of them were computed here."""
        if self._computed is not None and self._ranks.rank == 0:
            tensors = {k: v.cpu() for k, v in vars(self._computed).items()}
            try:
                content = checksums.seal_bytes(save(tensors, {checksums.KEY: checksums.ZEROS}))
                files.replace(self._file, lambda path: path.write_bytes(content))
            except files.DiskFull as e:
                print(f"the teacher's logits are not cached: {e}", flush=True)
        self._read = self._computed = None

    def _empty(self, device: torch.device) -> TopK:
        row = TopK.of(torch.zeros(1, self._num_classes, device=device), self._k)
        return TopK(*(tensor.new_zeros((self._size, *tensor.shape[1:])) for tensor in vars(row).values()))

    def _load(self, device: torch.device) -> TopK:
        try:
            content = self._file.read_bytes()
            checksums.check_bytes(content)
            logits = TopK(**{name: tensor.to(device) for name, tensor in load(content).items()})
            if logits.values.shape == (self._size, self._k):
                return logits
            problem = f"logits of shape {tuple(logits.values.shape)}"
        except Exception as e:  # a damaged file makes the reader raise anything
            if number := files.error_number(e):
                raise OSError(number, os.strerror(number), str(self._file)) from None
            problem = f"{type(e).__name__}: {e}"
        raise WrongLogits(f"{self._file}: {problem}; remove it and run the sweep again with --retry-failed")
