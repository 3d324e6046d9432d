"""Micro-batches, clipping and label smoothing give what a plain loop gives, for any number of ranks."""

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
from harness.training.step import micro_batches
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher
from methods.base import Batch, Outputs, SampleRandom
from tests.support.sciences import make_science
from tests.support.steps import train_step

CLASSES, SHAPE, NET = 10, (1, 8, 8), "digits_net_w4"
COUNT = 13


def batch(seed: int = 0, count: int = COUNT) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *SHAPE, generator=generator)
    return Batch(images, torch.arange(count) % CLASSES, torch.arange(count), SampleRandom(seed, count), 1)


@given(count=st.integers(1, 70), world=st.integers(1, 8), accumulate=st.integers(1, 9))
def test_the_ranks_rows_of_a_part_make_up_the_part(count: int, world: int, accumulate: int) -> None:
    """They are in the order of `all_gather`, and the parts make up the batch."""
    all_ranks = [Ranks(rank, world) for rank in range(world)]
    whole = range(count)
    all_rows = []
    for part in (BatchPart(index, accumulate) for index in range(accumulate)):
        rows = [i for ranks in all_ranks for i in whole[ranks.rows(count, part)]]
        assert rows == list(whole[part.rows])
        all_rows += rows
    assert sorted(all_rows) == list(whole)


@given(count=st.integers(1, 40), world=st.integers(1, 4), accumulate=st.integers(1, 6))
def test_a_micro_batch_holds_the_same_rows_of_everything(count: int, world: int, accumulate: int) -> None:
    numbers = torch.arange(count)
    maps = numbers.float().view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    teacher = Outputs(numbers[:, None].float(), numbers[:, None].float(), {"tap": maps})
    for rank in range(world):
        ranks = Ranks(rank, world)
        whole = Batch(maps[ranks.rows(count)], numbers, numbers, SampleRandom(0, count))
        parts = list(micro_batches(whole, teacher, accumulate, ranks))
        assert len(parts) == min(accumulate, count)
        for part, micro, outputs in parts:
            expected = numbers[part.rows]
            assert torch.equal(micro.indices, expected) and torch.equal(micro.targets, expected)
            for values in (outputs.logits, outputs.embedding, outputs.features["tap"][:, 0, 0]):
                assert torch.equal(values[:, 0].long(), expected)
            assert outputs.features["tap"].is_contiguous(memory_format=torch.channels_last)
            mine = numbers[ranks.rows(count, part)]
            assert torch.equal(micro.images[:, 0, 0, 0].long(), mine)
            assert len(micro.random.normal(2)) == len(expected)


def test_micro_batches_draw_different_random_numbers() -> None:
    def draws(accumulate: int) -> Tensor:
        parts = micro_batches(batch(), Outputs(torch.empty(0), torch.empty(0)), accumulate, ONE_RANK)
        return torch.cat([micro.random.uniform(3) for _, micro, _ in parts])

    assert torch.equal(draws(1), batch().random.uniform(3))
    assert torch.equal(draws(4), draws(4)) and len(draws(4).unique()) == 3 * COUNT


def plain_loop(net: ConvNet, recipe: dict[str, Any]) -> None:
    """Take three steps as a plain training loop would."""
    parts, norm = recipe.get("accumulate", 1), recipe.get("clip_norm")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for seed in range(3):
        whole = batch(seed)
        optimiser.zero_grad()
        for j in range(parts):
            logits = net(whole.images[j::parts]).logits
            smoothing = recipe.get("label_smoothing", 0.0)
            losses = F.cross_entropy(logits, whole.targets[j::parts], label_smoothing=smoothing, reduction="none")
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
    plain_loop(net, recipe)
    member.begin_epoch()
    for seed in range(3):
        total = train_step(member, batch(seed), Outputs(torch.empty(0), torch.empty(0)))
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
    whole = batch()
    train_step(member, whole, teacher(whole.images, member.teacher_taps or set(), "float32", COUNT))
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(member.parameters, before, strict=True)])
    method_parameters = torch.cat([p.detach().flatten() for p in member.distiller.parameters()])
    assert float(moved.norm()) == pytest.approx(0.25, rel=1e-4)
    assert float(moved[: -len(method_parameters)].norm()) < 0.24, "the rest is the method's"
