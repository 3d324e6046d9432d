"""The networks by name, built."""

from harness.models.strided_conv import subsample_before_narrow_convs
from harness.models.taps import ConvNet
from harness.spec.library_models import is_library_model
from harness.spec.models import CATALOG
from harness.spec.tasks import import_object, resolve_model


def build_model(name: str, num_classes: int, in_channels: int = 3) -> ConvNet:
    """Return a freshly initialised network, drawn from torch's global random generator.

    Raises:
        ValueError: there is no such model; the message gives the nearest names.
    """
    name = resolve_model(name)
    if is_library_model(name):
        from harness.models.library_models import library_net  # timm may not be there

        net: ConvNet = library_net(name, num_classes, in_channels)
    else:
        entry = CATALOG[name]
        net = import_object(entry.factory)(num_classes=num_classes, in_channels=in_channels, **entry.kwargs)
    subsample_before_narrow_convs(net)
    return net
