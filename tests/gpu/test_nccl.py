"""The ranks' exchanges over NCCL, with one process: each does its work there although nobody answers."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from harness.training.distributed.ranks import ONE_RANK, Ranks
from tests.support.exchanges import train
from tests.support.packs import CUDA


@pytest.fixture
def alone() -> Iterator[Ranks]:
    torch.cuda.set_device(0)
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    dist.init_process_group("nccl", store=dist.PrefixStore("torch", store), rank=0, world_size=1)
    try:
        yield Ranks(0, 1, dist.PrefixStore("harness", store))
    finally:
        dist.destroy_process_group()


def test_one_process_trains_with_every_exchange(alone: Ranks) -> None:
    """Batch norms exchange their statistics, outputs are gathered and gradients are summed."""
    expected = train(ONE_RANK, CUDA)
    for name, value in train(alone, CUDA).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=name)
    assert alone.all_reduce_max(3, CUDA) == 3
    assert alone.all_gather_json({"a": [1, None]}) == [{"a": [1, None]}]
    assert alone.broadcast_json("value") == "value"
