"""The zoo's taps, descriptions, catalogue and facts. tests/golden/test_models.py checks its numbers."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.models.facts import measure_model
from harness.models.strided_conv import SubsampledConv
from harness.models.taps import Taps, describe_taps
from harness.models.zoo import build_model
from harness.spec.models import ALIASES, CATALOG, model_facts
from harness.spec.tasks import resolve_model
from harness.spec.tasks.detection import DETECTORS
from methods.base import CAM, TapSpec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_built")]
FAMILIES = ["resnet8", "ResNet50", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2", "digits_net_w8"]


def images(name: str, batch: int = 2) -> Tensor:
    return torch.randn(batch, *CATALOG[name].image_shape, generator=torch.Generator().manual_seed(0))


def family_model(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, 10, CATALOG[name].image_shape[0])


@pytest.mark.parametrize("name", [*CATALOG, *DETECTORS])
def test_facts_file_agrees_with_the_zoo(name):
    measured, from_file = measure_model(name), model_facts(name)
    assert from_file == measured, "run python -m harness.models.facts"
    assert list(from_file.taps) == list(measured.taps)


def test_only_the_taps_asked_for_are_returned():
    model = family_model("resnet8").eval()
    assert model(images("resnet8")).features == {}
    assert list(model(images("resnet8"), ("stage2", "stem")).features) == ["stem", "stage2"]


@pytest.mark.parametrize("name", FAMILIES)
def test_unknown_tap_is_refused_with_the_valid_ones(name):
    model = family_model(name)
    with pytest.raises(ValueError, match=r"no tap named 'stage9'.*stem.*stage2\.preact"):
        model(images(name), ("stem", "stage9"))
    with pytest.raises(ValueError, match=r"stem\.preact"):
        model(images(name), ("stem.preact",))


@pytest.mark.parametrize("taps", ["all", "no preact"])
@pytest.mark.parametrize("name", FAMILIES)
def test_maps_handed_out_are_not_overwritten(name, taps, monkeypatch):
    """In-place operations later in the network must not reach a map, nor a map's reader the network."""
    handed_out = {}

    def spy(self: Taps, tap: str, x: Tensor) -> Tensor:
        handed_out[tap] = x.detach().clone()
        return plain(self, tap, x)

    plain = Taps.__call__
    monkeypatch.setattr(Taps, "__call__", spy)
    model = family_model(name)
    expected = model.tap_names if taps == "all" else [t for t in model.tap_names if not t.endswith(".preact")]
    outputs = model(images(name), expected)
    assert set(outputs.features) == set(expected)
    for tap, feature in outputs.features.items():
        assert torch.equal(feature, handed_out[tap]), tap
    assert torch.equal(outputs.logits, family_model(name)(images(name)).logits)
    sum(t.square().mean() for t in (*outputs.features.values(), outputs.logits)).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet8", "ResNet50", "vgg8", "ShuffleV1", "digits_net_w8"])
def test_preact_is_what_the_relu_sees(name):
    model = family_model(name)
    features = model(images(name), model.tap_names).features
    for tap in ("stage1", "stage2"):
        assert features[f"{tap}.preact"].min() < 0
        assert torch.equal(features[f"{tap}.preact"].relu(), features[tap])


def test_shufflev2_shuffles_after_the_relu():
    features = family_model("ShuffleV2")(images("ShuffleV2"), ("stage1", "stage1.preact")).features
    assert features["stage1.preact"].min() < 0
    left, right = features["stage1.preact"].relu().chunk(2, 1)
    assert torch.equal(features["stage1"], torch.stack([left, right], 2).flatten(1, 2))


@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2"])
def test_wrn_updates_each_batch_norm_once_per_step(name):
    watched, plain = family_model(name), family_model(name)
    outputs = watched(images(name), watched.tap_names)
    plain(images(name))
    assert outputs.features["stage3.preact"].min() < 0
    for key, value in watched.state_dict().items():
        if key.endswith("num_batches_tracked"):
            assert value == 1, key
        assert torch.equal(value, plain.state_dict()[key]), key


@pytest.mark.parametrize("name", FAMILIES)
def test_describe_leaves_the_model_as_it_was(name):
    model = family_model(name).train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    spec = describe_taps(model, CATALOG[name].image_shape)
    facts = model_facts(name).taps
    assert spec.head is not None
    assert spec.channels == {tap: shape[0] for tap, shape in facts.items()} | {CAM: 10}
    assert spec.sizes == {tap: shape[1:] for tap, shape in facts.items()} | {CAM: facts[spec.head.tap][1:]}
    assert spec.num_classes == 10 and isinstance(spec, TapSpec)
    assert spec.embedding_dim == model(images(name)).embedding.shape[1]
    assert all(m.training == (m is not frozen) for m in model.modules())
    model = family_model(name).train()
    describe_taps(model, CATALOG[name].image_shape)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_stays_channels_last(name):
    model = family_model(name).to(memory_format=torch.channels_last).eval()
    outputs = model(images(name, 4).to(memory_format=torch.channels_last), model.tap_names)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in outputs.features.values())
    reference = family_model(name).eval()(images(name, 4)).logits
    torch.testing.assert_close(outputs.logits, reference, rtol=1e-4, atol=1e-4 * reference.abs().max().item())


def test_vgg_pools_64x64_images_once_more():
    spec = describe_taps(family_model("vgg8"), (3, 64, 64))
    assert spec.sizes["stage3"] == (8, 8) and spec.sizes["stage4"] == (4, 4)


@pytest.mark.parametrize("name", ["resnet20", "ResNet50", "wrn_16_2", "vgg8", "MobileNetV2"])
def test_convolutions_start_with_he_fan_out(name):
    for module in family_model(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = math.prod(module.kernel_size) * module.out_channels
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.06)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "MobileNetV2"])
def test_linear_layer_starts_small(name):
    linear = next(m for m in family_model(name).modules() if isinstance(m, nn.Linear))
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05) and not linear.bias.any()


def test_wrn_linear_bias_starts_at_zero():
    assert not family_model("wrn_16_1").fc.bias.any()


def test_names():
    assert all(resolve_model(name) == name for name in CATALOG)
    assert not set(ALIASES) & set(CATALOG)
    assert model_facts("ShuffleNetV1") == model_facts("ShuffleV1")
    assert type(build_model("mobilenetv2", 10)) is type(build_model("MobileNetV2", 10))
    for use in (resolve_model, lambda name: build_model(name, 10)):
        with pytest.raises(ValueError, match=r"no model named 'wrn_40_3'; nearest: .*wrn_40_2"):
            use("wrn_40_3")
    with pytest.raises(ValueError, match="such as resnet20, torchvision:resnet18, "):
        resolve_model("?")


def test_catalogue_does_not_load_torch():
    script = (
        "import sys; from harness.spec import models, tasks;"
        "models.model_facts('resnet20'); tasks.resolve_model('WRN-40-2');"
        "print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_checkpoints_load_as_they_are(name):
    if "KD_DATA" not in os.environ:
        pytest.skip("KD_DATA is not set")
    path = Path(os.environ["KD_DATA"]) / "weights" / f"{name}.pth"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    model = build_model(name, 100)
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"), strict=True)
    assert model.eval()(images(name)).logits.isfinite().all()


def test_narrow_strided_convolutions_have_the_gradients_of_float64() -> None:
    """oneDNN 3.12 gets them wrong in channels-last layout on CPUs with only AVX2: see harness.models.strided_conv."""
    model = family_model("digits_net_w4")
    narrow = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.in_channels < 8]
    assert len(narrow) == 2
    for conv in narrow:
        assert type(conv) is SubsampledConv
        conv.to(memory_format=torch.channels_last)
        x = torch.randn(8, conv.in_channels, 9, 9, generator=torch.Generator().manual_seed(0))
        exact = nn.Conv2d(conv.in_channels, conv.out_channels, 1, stride=2, bias=False).double()
        exact.load_state_dict(conv.state_dict())
        exact(x.double()).square().sum().backward()
        for _ in range(5):
            conv.zero_grad()
            conv(x.to(memory_format=torch.channels_last)).square().sum().backward()
            torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=1e-5, atol=1e-5)
