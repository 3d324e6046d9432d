"""Weights by the libraries' own names, read from their sources, against the libraries themselves."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from timm.models import get_pretrained_cfg

from harness.models.renormalisation import Renormalisation
from harness.spec import pretrained
from harness.spec.pretrained_normalisation import published_normalisation
from harness.spec.tasks import DATASETS


@pytest.mark.parametrize("detection", [False, True])
def test_torchvisions_are_all_there(detection: bool) -> None:
    models = torchvision.models
    module = models.detection if detection else models
    members = (w for name in models.list_models(module=module) for w in models.get_model_weights(name))
    listed = {f"{type(w).__name__}.{w.name}": w.url for w in members}
    assert pretrained.weights_urls("torchvision", detection) == listed
    assert all(len(pretrained.sha256_start(url)) >= 8 for url in listed.values())


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("torchvision:ResNet34_Weights.IMAGENET1K_V1", "https://download.pytorch.org/models/resnet34-b627a593.pth"),
        ("torchvision:ResNet50_Weights.IMAGENET1K_V1", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
        (
            "timm:mobilenetv1_100.ra4_e3600_r224_in1k",
            "https://huggingface.co/timm/mobilenetv1_100.ra4_e3600_r224_in1k/resolve/main/model.safetensors",
        ),
    ],
)
def test_addresses(name: str, url: str) -> None:
    assert pretrained.weights_url(name) == url
    pretrained.check_url(url)


def test_timms_are_those_that_it_loads_as_they_are() -> None:
    urls = pretrained.weights_urls("timm")
    plain = set()
    for name in timm.list_pretrained():
        cfg = get_pretrained_cfg(name)
        if cfg.hf_hub_id == f"timm/{name}" and not (cfg.hf_hub_filename or cfg.custom_load):
            plain.add(name)
    assert len(set(urls) & plain) > 0.95 * len(plain)
    assert len(set(urls) - plain) <= 1, "an entry of a model that is not listed"


def test_timms_means_and_stds_are_those_that_it_states() -> None:
    stated = {name: get_pretrained_cfg(name) for name in pretrained.weights_urls("timm")}
    expected = {name: (cfg.mean, cfg.std) for name, cfg in stated.items() if cfg}
    assert {name: published_normalisation(f"timm:{name}") for name in expected} == expected
    assert len(set(expected.values())) > 4 and len(expected) >= len(stated) - 1


def test_torchvisions_means_and_stds_are_those_of_its_transforms() -> None:
    models = torchvision.models
    members = [w for name in models.list_models(module=models) for w in models.get_model_weights(name)]
    for member in members:
        transforms, name = member.transforms(), f"{type(member).__name__}.{member.name}"
        expected = tuple(transforms.mean), tuple(transforms.std)
        if type(member).__name__ in ("GoogLeNet_Weights", "Inception_V3_Weights"):
            expected = (0.5,) * 3, (0.5,) * 3  # the library makes the network itself take ImageNet's to these
        assert published_normalisation(f"torchvision:{name}") == expected, name


@pytest.mark.parametrize("network", [torchvision.models.GoogLeNet, torchvision.models.Inception3])
def test_what_torchvision_does_within_a_network_is_done_before_it(network: Any) -> None:
    images = torch.randn(2, 3, 8, 8)
    expected = network._transform_input(SimpleNamespace(transform_input=True), images)
    info = DATASETS["imagenet"]
    own = published_normalisation("torchvision:GoogLeNet_Weights.IMAGENET1K_V1")
    assert own
    torch.testing.assert_close(Renormalisation(info.normalisation, own)(images), expected)


def test_only_pytorchs_names_have_the_start_of_a_hash() -> None:
    assert pretrained.sha256_start("https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth") == "5666bf0f80"
    for url in ("https://download.pytorch.org/models/net-v2.pth", "https://example.org/net-20240131.pth"):
        assert pretrained.sha256_start(url) == ""


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    pretrained.weights_urls.cache_clear()
    with pytest.raises(ValueError, match=r"models of timm need it installed: pip install 'kd-harness\[timm\]'"):
        pretrained.weights_url("timm:resnet18.a1_in1k")


@given(st.text(max_size=40) | st.from_regex(r"https?://[\w@:.\[\]%-]*/\S*\.(pth|html)", fullmatch=True))
def test_any_address_is_taken_or_refused_by_one_kind_of_error(text: str) -> None:
    try:
        pretrained.check_url(text)
    except ValueError:
        return
    assert text.lower().startswith("https://") and text.isascii() and text.isprintable() and " " not in text
