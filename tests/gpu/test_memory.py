"""The memory budget of a GPU: what a member takes is measured, and one that does not fit waits."""

import pytest
import torch

from harness.training.cuda.memory import MemoryBudget
from tests.support.packs import CUDA, EPOCHS, Counted, assert_same_end, train

MIB = 1 << 20


def test_a_member_is_measured_and_the_next_fits_only_into_free_memory() -> None:
    torch.cuda.empty_cache()
    budget = MemoryBudget(CUDA)
    assert budget.fits_another(), "the first member always trains"
    with budget.measure("first"):
        held = torch.empty(64 * MIB, dtype=torch.uint8, device=CUDA)
    assert budget._used["first"] >= 64 * MIB
    assert budget.fits_another(), "a GPU without 200 MB of free memory cannot run this test"
    free, total = torch.cuda.mem_get_info()
    others = torch.empty(free - total // 20 - 64 * MIB, dtype=torch.uint8, device=CUDA)
    assert not budget.fits_another()
    del held, others
    budget.reset()
    assert budget.fits_another() and not budget._used
    assert torch.cuda.mem_get_info()[0] > free - 64 * MIB, "cached memory goes back to the GPU"


def test_on_a_full_gpu_members_train_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    roomy, _ = train(["kd", "student"], Counted(), CUDA)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    others = torch.empty(free - total // 20, dtype=torch.uint8, device=CUDA)  # less is left than is kept free
    capsys.readouterr()
    tight, watcher = train(["kd", "student"], Counted(), CUDA)
    assert "student waits for GPU memory; in training: kd" in capsys.readouterr().out
    del others
    assert not watcher.failures
    for use, member in tight.items():
        assert member.history.epoch == EPOCHS
        assert_same_end(roomy[use], member)
