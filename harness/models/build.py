"""The networks by name, built."""

import importlib

from harness.models.base import ConvNet
from harness.spec.foreign import is_foreign
from harness.spec.models import CATALOG, resolve


def build(name: str, num_classes: int, in_channels: int = 3) -> ConvNet:
    """A freshly initialised network, drawn from torch's global random generator.

    Raises:
        ValueError: there is no such model; the message gives the nearest names.
    """
    name = resolve(name)
    if is_foreign(name):
        from harness.models.foreign import foreign_net  # timm may not be there

        return foreign_net(name, num_classes, in_channels)
    entry = CATALOG[name]
    factory = getattr(importlib.import_module(entry.module), entry.factory)
    return factory(num_classes=num_classes, in_channels=in_channels, **entry.kwargs)
