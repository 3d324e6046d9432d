"""The cache of a teacher's logits: its content and the checks when it is read."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.training.distributed.ranks import ONE_RANK
from harness.training.teacher_logits import CachedLogits, TopK, WrongLogits

CLASSES, SIZE, BATCH = 50, 24, 8
CPU = torch.device("cpu")
LOGITS = 5 * torch.randn(SIZE, CLASSES, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, CLASSES), st.integers(0, 2**31), st.floats(0.1, 10))
def test_the_largest_logits_stay_and_the_others_keep_their_mass(k: int, seed: int, scale: float) -> None:
    logits = scale * torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(seed))
    expanded = TopK.of(logits, k).expanded(CLASSES)
    top = logits.topk(k).indices
    torch.testing.assert_close(expanded.gather(1, top), logits.gather(1, top), rtol=2**-11, atol=1e-6)
    mass = [x.softmax(1).gather(1, top).sum(1) for x in (expanded, logits)]
    torch.testing.assert_close(*mass, rtol=0, atol=2**-4)
    rest = expanded.scatter(1, top, torch.nan)
    assert all(len(set(row[~row.isnan()].tolist())) <= 1 for row in rest)


class Passes:
    """Epochs over cached logits, with a teacher that counts its batches."""

    def __init__(self, folder: Path, k: int = 10):
        self.cached, self.teacher_batches = CachedLogits(folder, k, SIZE, CLASSES, ONE_RANK), 0
        self.logits = LOGITS

    def epoch(self, epoch: int, first_step: int = 0) -> Tensor:
        order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(epoch)).split(BATCH)
        self.cached.begin(epoch, first_step, len(order), CPU)
        batches = []
        for step in range(first_step, len(order)):
            batches.append(self.cached(step, order[step], lambda step=step: self.teacher(order[step])))  # type: ignore[misc]
        self.cached.end()
        return torch.cat(batches)

    def teacher(self, indices: Tensor) -> Tensor:
        self.teacher_batches += 1
        return self.logits[indices]


def test_cached_logits_are_bit_for_bit_those_computed(tmp_path: Path) -> None:
    first, second = Passes(tmp_path), Passes(tmp_path)
    computed, read = first.epoch(0), second.epoch(0)
    assert torch.equal(computed, read)
    assert (first.teacher_batches, second.teacher_batches) == (3, 1), "one batch of three is computed again, to check"


def test_an_epoch_resumed_in_its_middle_is_not_cached_but_reads_the_cache(tmp_path: Path) -> None:
    cut = Passes(tmp_path)
    part = cut.epoch(1, first_step=1)
    assert not list(tmp_path.iterdir())
    whole = Passes(tmp_path).epoch(1)
    assert torch.equal(whole[BATCH:], part)
    assert torch.equal(cut.epoch(1, first_step=2), whole[2 * BATCH :])


def test_another_teachers_logits_are_refused_and_removed(tmp_path: Path) -> None:
    Passes(tmp_path).epoch(0)
    other = Passes(tmp_path)
    other.logits = LOGITS.flip(0)
    with pytest.raises(WrongLogits, match=r"epoch-000000.*differs from the teacher's logits by .*--retry-failed"):
        other.epoch(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["torn", "short", "foreign"])
def test_a_damaged_file_is_reported(damage: str, tmp_path: Path) -> None:
    Passes(tmp_path).epoch(0)
    (file,) = tmp_path.iterdir()
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "short":
        save_file({k: v[:-1].contiguous() for k, v in load_file(file).items()}, file)
    else:
        save_file({"weights": torch.zeros(3)}, file)
    with pytest.raises(WrongLogits, match=r"epoch-000000\.safetensors: .*remove it"):
        Passes(tmp_path).epoch(0)
