"""Networks of other people: a zoo's, or whatever a function of theirs returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.imports import import_reference, reason

ZOOS = ("torchvision", "timm", "hf")
FORMS = "package.module:factory, torchvision:NAME, timm:NAME or hf:FOLDER"


def import_model(reference: str, *, classes: int | None = None, flag: str = "--model") -> nn.Module:
    """Build the network that ``reference`` names.

    Args:
        reference: ``package.module:factory`` (called without arguments; modules in the current folder are found, see
            :mod:`alignscape.imports`), ``torchvision:NAME``, ``timm:NAME``, or ``hf:FOLDER`` with the ``config.json``
            of an image classifier of Hugging Face's (``hf:NAME``: what their cache has of that name); none of them
            with its weights.
        classes: outputs of a network of these three; its own number if None.
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
        raise InputError(f"{flag} {reference!r} must be {FORMS}")
    factory = None if source in ZOOS else import_reference(reference, flag=flag)
    try:
        model = _zoo_model(source, name, classes) if factory is None else factory()
    except (Exception, SystemExit) as error:  # whatever the user's own code raises becomes one line that names it
        raise InputError(f"{flag} {reference}: {reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{flag} {reference} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _zoo_model(source: str, name: str, classes: int | None) -> nn.Module:
    if source == "hf":
        return _hugging_face(name, classes)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if source == "torchvision":
        from torchvision.models import get_model

        return get_model(name, weights=None, **options)
    with extra("timm"):
        import timm
    return timm.create_model(name, pretrained=False, **options)


def _hugging_face(name: str, classes: int | None) -> nn.Module:
    """Build the image classifier that a ``config.json`` describes, without its weights and without code of its own."""
    with extra("transformers"):
        from transformers import AutoConfig, AutoModelForImageClassification
    options: dict[str, Any] = {} if classes is None else {"num_labels": classes}
    config = AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False, **options)
    return as_logits(AutoModelForImageClassification.from_config(config, trust_remote_code=False))


def as_logits(model: nn.Module) -> nn.Module:
    """Have ``model`` return the logits alone of what it returns; by a hook, so that its weights keep their names."""
    model.register_forward_hook(_logits)
    return model


def _logits(module: nn.Module, inputs: Any, output: Any) -> Tensor:
    found: Tensor = output.logits
    return found


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra that a missing library comes with."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(f"this needs the extra `{name}`: pip install 'alignscape[{name}]'") from error
