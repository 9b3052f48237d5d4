"""Networks of other people: a zoo's, or whatever a function of theirs returns."""

from typing import Any

from torch import nn

from alignscape.errors import InputError
from alignscape.imports import import_reference, reason

ZOOS = ("torchvision", "timm")


def import_model(reference: str, *, classes: int | None = None, flag: str = "--model") -> nn.Module:
    """Build the network that ``reference`` names.

    Args:
        reference: ``package.module:factory`` (called without arguments; modules in the current folder are found, see
            :mod:`alignscape.imports`),
            ``torchvision:NAME`` or ``timm:NAME``, both without their weights.
        classes: outputs of a network of torchvision or timm; its own number if None.
        flag: what messages call the reference.

    Raises:
        InputError: the reference has another form, or cannot be imported or called, or gives no ``nn.Module``.

    Example:
        >>> import torch
        >>> from training import import_model
        >>> model = import_model("torchvision:squeezenet1_1", classes=10)
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    source, _, name = reference.partition(":")
    if not source or not name:
        raise InputError(f"{flag} {reference!r} must be package.module:factory, torchvision:NAME or timm:NAME")
    factory = None if source in ZOOS else import_reference(reference, flag=flag)
    try:
        model = _zoo_model(source, name, classes) if factory is None else factory()
    except (Exception, SystemExit) as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{flag} {reference}: {reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{flag} {reference} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _zoo_model(source: str, name: str, classes: int | None) -> nn.Module:
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if source == "torchvision":
        from torchvision.models import get_model

        return get_model(name, weights=None, **options)
    import timm  # the optional extra

    return timm.create_model(name, pretrained=False, **options)
