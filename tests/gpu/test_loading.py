"""Loaders on a GPU give the batches that they give on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.data.load.beton import to_device
from harness.data.load.tensors import Normalise, TensorLoader
from tests.support.packs import BATCH, CPU, CUDA, INFO, images


def batches(device: torch.device) -> list[tuple[Tensor, ...]]:
    pixels, targets = (x.to(device) for x in images())
    loader = TensorLoader(pixels, targets, Normalise(INFO, device), batch_size=BATCH, crop_padding=2, flip=True, seed=1)
    return [tuple(x.cpu() for x in batch) for epoch in (0, 1) for batch in loader.epoch(epoch)]


def test_images_that_lie_on_the_gpu() -> None:
    for there, here in zip(batches(CUDA), batches(CPU), strict=True):
        torch.testing.assert_close(there[0], here[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(there[1], here[1]) and torch.equal(there[2], here[2])


def test_batches_whose_memory_is_written_over_once_the_next_is_asked_for() -> None:
    """The loader's buffer is pinned. The GPU is kept busy, so that a copy that nobody waits for would be late."""
    buffer = torch.empty((64, 64, 64, 3), dtype=torch.uint8, pin_memory=True)

    def decoded():  # type: ignore[no-untyped-def]
        for i in range(20):
            yield buffer.fill_(i)

    busy = torch.randn(2048, 2048, device=CUDA)
    sums = []
    for batch in to_device(decoded(), CUDA):
        busy = (busy @ busy).clamp(-1, 1)
        sums.append(batch.long().sum())
    assert [int(s) for s in sums] == [i * buffer.numel() for i in range(20)]


def test_stored_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from harness.data import beton
    from tests.support.beton_loading import N, train_loader
    from tests.support.images import encode_jpeg, picture

    with (tmp_path / "train.beton").open("wb") as file:
        writer = beton.Writer(file, N)
        for i in range(N):
            writer.add(i % 7, 100, 120, encode_jpeg(picture(100, 120, i)))
        writer.finish()
    assert image.MIME["JPEG"]
    here, there = (
        list(train_loader(tmp_path / "train.beton", "pil", device=device).epoch(0)) for device in (CPU, CUDA)
    )
    for on_cpu, on_gpu in zip(here, there, strict=True):
        assert on_gpu[0].device.type == "cuda"
        torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], rtol=1e-6, atol=1e-3)
        assert torch.equal(on_gpu[2].cpu(), on_cpu[2])
