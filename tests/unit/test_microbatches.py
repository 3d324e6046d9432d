"""Batches taken in parts, clipping and label smoothing: as a plain loop does them, for any number of processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness import rng
from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.training.distributed.ranks import ONE_RANK, BatchPart, Ranks
from harness.training.member import Member
from harness.training.step import micro_batches, train_step
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher
from methods.base import Batch, Outputs, SampleRandom
from tests.support.sciences import make_science

CLASSES, SHAPE, NET = 10, (1, 8, 8), "digits_net_w4"
COUNT = 13


def batch(seed: int = 0, count: int = COUNT) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *SHAPE, generator=generator)
    return Batch(images, torch.arange(count) % CLASSES, torch.arange(count), SampleRandom(seed, count), 1)


@given(count=st.integers(1, 70), world=st.integers(1, 8), accumulate=st.integers(1, 9))
def test_the_processes_rows_of_a_part_are_the_part(count: int, world: int, accumulate: int) -> None:
    """In the order in which `gather` puts them together; and the parts are the batch."""
    everyone = [Ranks(rank, world) for rank in range(world)]
    whole = range(count)
    seen = []
    for part in (BatchPart(index, accumulate) for index in range(accumulate)):
        rows = [i for ranks in everyone for i in whole[ranks.rows(count, part)]]
        assert rows == list(whole[part.rows])
        seen += rows
    assert sorted(seen) == list(whole)


@given(count=st.integers(1, 40), world=st.integers(1, 4), accumulate=st.integers(1, 6))
def test_parts_of_a_batch_hold_what_belongs_together(count: int, world: int, accumulate: int) -> None:
    numbers = torch.arange(count)
    maps = numbers.float().view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    taught = Outputs(numbers[:, None].float(), numbers[:, None].float(), {"tap": maps})
    for rank in range(world):
        ranks = Ranks(rank, world)
        given = Batch(maps[ranks.rows(count)], numbers, numbers, SampleRandom(0, count))
        parts = list(micro_batches(given, taught, accumulate, ranks))
        assert len(parts) == min(accumulate, count)
        for part, micro, outputs in parts:
            expected = numbers[part.rows]
            assert torch.equal(micro.indices, expected) and torch.equal(micro.targets, expected)
            for told in (outputs.logits, outputs.embedding, outputs.features["tap"][:, 0, 0]):
                assert torch.equal(told[:, 0].long(), expected)
            assert outputs.features["tap"].is_contiguous(memory_format=torch.channels_last)
            mine = numbers[ranks.rows(count, part)]
            assert torch.equal(micro.images[:, 0, 0, 0].long(), mine)
            assert len(micro.random.normal(2)) == len(expected)


def test_parts_draw_one_after_another() -> None:
    def drawn(accumulate: int) -> Tensor:
        parts = micro_batches(batch(), Outputs(torch.empty(0), torch.empty(0)), accumulate, ONE_RANK)
        return torch.cat([micro.random.uniform(3) for _, micro, _ in parts])

    assert torch.equal(drawn(1), batch().random.uniform(3))
    assert torch.equal(drawn(4), drawn(4)) and len(drawn(4).unique()) == 3 * COUNT


def by_hand(net: ConvNet, recipe: dict[str, Any]) -> None:
    """Three steps of a plain loop."""
    parts, norm = recipe.get("accumulate", 1), recipe.get("clip_norm")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for seed in range(3):
        given = batch(seed)
        optimiser.zero_grad()
        for j in range(parts):
            logits = net(given.images[j::parts]).logits
            smoothing = recipe.get("label_smoothing", 0.0)
            losses = F.cross_entropy(logits, given.targets[j::parts], label_smoothing=smoothing, reduction="none")
            (losses.sum() / COUNT).backward()
        if norm is not None:
            gradients = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
            assert gradients.norm() > norm
            for p in net.parameters():
                assert p.grad is not None
                p.grad *= norm / gradients.norm()
        optimiser.step()


@pytest.mark.parametrize(
    "recipe",
    [{}, {"accumulate": 4}, {"clip_norm": 0.5}, {"label_smoothing": 0.2},
     {"accumulate": 13, "clip_norm": 0.1, "label_smoothing": 0.9}],
    ids=["plain", "parts", "clipped", "smoothed", "all"],
)  # fmt: skip
def test_recipe_keys_do_as_a_plain_loop(recipe: dict[str, Any]) -> None:
    science = make_science(NET, seed=5, **recipe)
    member = Member(science, None, torch.arange(COUNT) % CLASSES, Classification(CLASSES, SHAPE), torch.device("cpu"))
    torch.manual_seed(rng.stream_key(5, 0, f"student {NET}"))
    net = build_model(NET, CLASSES, in_channels=1).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    by_hand(net, recipe)
    member.begin_epoch()
    for seed in range(3):
        given = batch(seed)
        total = train_step(member, given, Outputs(torch.empty(0), torch.empty(0)))
        assert total.isfinite()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(member.student.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(value, before[name])


def test_clipping_counts_the_methods_gradients() -> None:
    torch.manual_seed(1)
    model = build_model("digits_net_w8", CLASSES, in_channels=1).eval().requires_grad_(False)
    teacher = Teacher(model, "digits_net_w8", Path(), "", 0.0, describe_taps(model, SHAPE))
    recipe = {"lr": 1.0, "momentum": 0, "weight_decay": 0, "clip_norm": 0.25}
    science = make_science(NET, "fitnets", {"tap": "stage1"}, {"ce": 1.0, "hint": 100.0}, **recipe)
    member = Member(
        science, teacher, torch.arange(COUNT) % CLASSES, Classification(CLASSES, SHAPE), torch.device("cpu")
    )
    member.begin_epoch()
    before = [p.detach().clone() for p in member.parameters]
    given = batch()
    train_step(member, given, teacher(given.images, member.teacher_taps or set(), "float32", COUNT))
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(member.parameters, before, strict=True)])
    of_method = torch.cat([p.detach().flatten() for p in member.distiller.parameters()])
    assert float(moved.norm()) == pytest.approx(0.25, rel=1e-4)
    assert float(moved[: -len(of_method)].norm()) < 0.24, "the rest is the method's"
