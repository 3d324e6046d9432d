"""The networks by name, built."""

from harness.models.strided_conv import subsample_before_narrow_convs
from harness.models.taps import ConvNet
from harness.spec.library_models import is_library_model
from harness.spec.model_reference import ModelReference
from harness.spec.models import CATALOG
from harness.spec.own_models import is_own_model
from harness.spec.tasks import import_object, resolve_model


def build_model(name: str, num_classes: int, in_channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> ConvNet:
    """Return a freshly initialised network, drawn from torch's global random generator.

    ``image_size``: the height and width of the images that a model of the user's own is looked at with. Its module is
    imported: its name must be one that the user has given.

    Raises:
        ValueError: there is no such model; the message gives the nearest names.
        UserError: a model of the user's own is no classifier of these images.
    """
    reference = ModelReference.parse(resolve_model(name))
    if is_library_model(reference.name):
        from harness.models.library_models import library_net  # timm may not be there

        net: ConvNet = library_net(reference.name, num_classes, in_channels, reference.params)
    elif is_own_model(reference.name):
        from harness.models.own_models import own_net

        net = own_net(reference, num_classes, (in_channels, *image_size))
    else:
        entry = CATALOG[reference.name]
        params = {**entry.kwargs, **reference.params}
        net = import_object(entry.factory)(num_classes=num_classes, in_channels=in_channels, **params)
    subsample_before_narrow_convs(net)
    return net
