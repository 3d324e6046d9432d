"""A teacher on a GPU: compiled, with the same outputs to rounding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec.tasks import DATASETS
from harness.training.precision import set_float32
from harness.training.teacher import Teacher, freeze
from tests.support.packs import CUDA

SHAPE = DATASETS["cifar100"].image_shape


def test_a_compiled_teacher_has_the_outputs_of_a_plain_one(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton")
    torch._dynamo.reset()
    set_float32("float32")
    torch.manual_seed(0)
    model = build_model("resnet8", 10)
    spec = describe_taps(model, SHAPE)
    freeze(model, CUDA)
    plain = Teacher(model, "resnet8", Path(), "", 0.0, spec)
    compiled = replace(plain)
    for teacher, batch_size in ((plain, None), (compiled, 16)):
        teacher.prepare("float32", compiled_for=batch_size)
    images = torch.randn(16, *SHAPE, device=CUDA).contiguous(memory_format=torch.channels_last)
    expected, got = (teacher(images, {"stage1", "stage3"}, "float32", 16) for teacher in (plain, compiled))
    assert capsys.readouterr().out == "", "it fell back"
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-4)
    for tap in ("stage1", "stage3"):
        torch.testing.assert_close(got.features[tap], expected.features[tap], rtol=1e-4, atol=1e-4)
