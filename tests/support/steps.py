"""A training step without a pack."""

from torch import Tensor

from harness.training.member import Member
from harness.training.step import compute_step
from methods.base import Batch, Outputs


def train_step(member: Member, batch: Batch, teacher: Outputs) -> Tensor:
    """Take one eager step on a batch that this process has whole; return the total loss, detached."""
    total = compute_step(member, batch, teacher, len(batch.indices))
    member.count_step(len(batch.indices))
    return total
