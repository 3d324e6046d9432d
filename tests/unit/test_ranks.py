"""Two ranks compute what one process does: all-gather with gradients, sums, and batch norm over all images."""

import importlib
import socket
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training.distributed import peers
from harness.training.distributed.ranks import ONE_RANK, Ranks, join_ranks
from harness.training.distributed.sync_batchnorm import SyncBatchNorm, sync_batch_norms
from tests.support.exchanges import network, train
from tests.support.rank_processes import run_ranks
from tests.support.rendezvous import new_rendezvous
from tests.support.sockets import listening_sockets, thread_names

WORLD = 2


def rank_main(rank: int, folder: Path, meeting: dict[str, str]) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), **meeting}
    sys.modules.pop("torch.distributed.nn.functional", None)  # what others have imported before hides who has to
    secrets: list[bytes] = []
    confirm = peers.confirm_peers
    peers.confirm_peers = lambda secret: secrets.append(secret) or confirm(secret)
    with join_ranks() as ranks:
        peers.confirm_peers = confirm
        assert ranks.broadcast_json([rank, "x"]) == [0, "x"]
        (secret,) = secrets
        assert len(secret) == 64 and len(set(secret)) > 4, "each has confirmed the others, by what nobody can guess"
        for address, port in (listening := listening_sockets()):
            assert address == "127.0.0.1"
            with pytest.raises(TimeoutError):
                socket.create_connection((address, port), timeout=0.2)
        assert listening, "otherwise nothing would be proved"
        with pytest.raises(RuntimeError, match="does not belong to this job"):
            peers.confirm_peers(b"a guess of %d" % rank)
        importlib.import_module("torch.distributed.nn.functional")  # as torch's compiler does: it would hold the group
        assert ranks.all_reduce_max(rank, ranks.device()) == 1
        torch.save(train(ranks), folder / f"{rank}.pt")
    assert "gloo" not in thread_names(), "gloo's threads would meet the interpreter's end"


def test_two_ranks_compute_what_one_process_does(tmp_path: Path) -> None:
    run_ranks(rank_main, (tmp_path, new_rendezvous(tmp_path)), WORLD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    single, before = train(ONE_RANK), network().state_dict()
    assert first.keys() == second.keys() == single.keys()
    for key, value in single.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-12, atol=1e-12, msg=key)
        assert not torch.equal(value, before[key]), "otherwise equality would prove nothing"


def test_no_code_can_be_passed_on_to_another_rank() -> None:
    ranks = range(3)
    assert len({peers._code(b"secret", sender, receiver) for sender in ranks for receiver in ranks}) == 9


def test_every_row_belongs_to_one_rank() -> None:
    for count in range(20):
        for world in range(1, 6):
            rows = [i for rank in range(world) for i in range(count)[Ranks(rank, world).rows(count)]]
            assert rows == list(range(count))


def test_no_rank_has_more_rows_of_a_smaller_batch() -> None:
    """A loader decodes a rank's share of full batches, and the last, smaller batch must fit into it."""
    for world in (2, 3, 8):
        for rank in range(world):
            shares = [len(range(count)[Ranks(rank, world).rows(count)]) for count in range(120)]
            assert shares == sorted(shares)


def test_evaluated_batch_norms_are_torchs_own() -> None:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.running_mean += 1  # type: ignore[operator]
    x = torch.randn(2, 3, 4, 4)
    model = nn.Sequential(norm).eval()
    expected = model(x)
    sync_batch_norms(model, Ranks(0, 2))
    assert type(model[0]) is SyncBatchNorm and torch.equal(model(x), expected)


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="0 is a Odd, which cannot be spread"):
        sync_batch_norms(nn.Sequential(Odd(3)), Ranks(0, 2))
