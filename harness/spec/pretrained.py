"""Addresses of the weights that torchvision and timm publish, by the libraries' own names.

They are read from the installed sources, because importing the libraries would import torch.
"""

import re
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

from harness.errors import shorten
from harness.spec import library_models

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_ENUM = re.compile(r"^class (\w+_Weights)\(WeightsEnum\):\n", re.MULTILINE)
_MEMBER = re.compile(r'^    (\w+) = Weights\(\s*url="([^"]+)"', re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
_ENTRY = re.compile(r"""^ +['"](\w+\.\w+)['"]: *(?=\w+\(|\{)""", re.MULTILINE)
_ON_TIMMS_HUB = re.compile(r"""\bhf_hub_id(=|['"]: )['"]timm/['"]""")
# The file has another name in its repository, or a format that the model's own code converts.
_OTHER_FORM = re.compile(r"\b(hf_hub_filename|custom_load)=")
_PYTORCH_HASH = re.compile(r"^https://download\.pytorch\.org/.*-([0-9a-f]{8,64})\.\w+$")


class Place(NamedTuple):
    """The place of a model's state dict in a file, where it is stated."""

    key: str | None = None  # the keys that lead to it, with dots between them
    prefix: str | None = None  # of its names, which is taken off


ANYWHERE = Place()


def weights_url(name: str) -> str:
    """Return the https address of published weights.

    Names: ``torchvision:ResNet34_Weights.IMAGENET1K_V1``, ``timm:resnet34.a1_in1k``, and for a detector
    ``torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1``.

    Raises:
        ValueError: the library is not installed, or has no such weights; the message gives the nearest names.
    """
    library, sep, weights = name.partition(":")
    if not sep or library not in library_models.LIBRARIES:
        raise ValueError(f"expected torchvision:MODEL_Weights.VERSION or timm:MODEL.TAG, found {shorten(name)}")
    known = weights_urls(library)
    if library == "torchvision":
        known = known | weights_urls(library, detection=True)
    if weights not in known:
        raise ValueError(library_models.unknown_library_name(library, "loadable weights", weights, known))
    return known[weights]


@cache
def weights_urls(library: str, detection: bool = False) -> dict[str, str]:
    """Return the addresses, by name, of the installed version's weights for classifiers or for torchvision's detectors.

    Only weights that are a plain state dict at the library's own place are listed.

    Raises:
        ValueError: it is not installed.
    """
    addresses: dict[str, str] = {}
    for text in library_models.source_texts(library, "models/detection" if detection else "models"):
        text = _COMMENT.sub("", text)
        if library == "torchvision":
            parts = _ENUM.split(text)
            for enum, body in zip(parts[1::2], parts[2::2], strict=True):
                addresses |= {f"{enum}.{member}": address for member, address in _MEMBER.findall(body)}
        else:
            parts = _ENTRY.split(text)
            for weights, entry in zip(parts[1::2], parts[2::2], strict=True):
                if _ON_TIMMS_HUB.search(entry) and not _OTHER_FORM.search(entry):
                    addresses[weights] = f"https://huggingface.co/timm/{weights}/resolve/main/model.safetensors"
    return addresses


def sha256_start(address: str) -> str:
    """Return the first digits of a file's sha256 that download.pytorch.org writes into its name; "" elsewhere."""
    match = _PYTORCH_HASH.match(address)
    return match[1] if match else ""


def check_url(address: str) -> None:
    """Check the address of a file of weights.

    Raises:
        ValueError: it is not an https address, or not of such a file.
    """
    parts = urlsplit(address)
    plain = address.isascii() and address.isprintable() and " " not in address
    if parts.scheme != "https" or not parts.hostname or not plain:
        raise ValueError("expected an https address, https://HOST/PATH")
    if parts.username is not None or parts.port == 0:  # a port that is none at all raises by itself
        raise ValueError("expected an address with no user, password or port 0")
    if not parts.path.endswith(SUFFIXES):
        raise ValueError(f"expected the address of a file that ends in {', '.join(SUFFIXES)}")
