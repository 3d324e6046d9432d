"""Weights by the libraries' own names, read from their sources, against the libraries themselves."""

import importlib

import pytest
import timm
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from timm.models import get_pretrained_cfg

from harness.spec import pretrained


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
