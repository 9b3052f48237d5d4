"""Networks of other people: a zoo's, or whatever a function of theirs returns."""

import functools
from collections.abc import Iterator, Mapping
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


def as_logits(model: nn.Module, name: str = "logits") -> nn.Module:
    """Have ``model`` return one part of what it returns; by a hook, so that its weights keep their names.

    Args:
        model: any; it is changed.
        name: of the part: a key, an attribute, or the place in a tuple.
    """
    model.register_forward_hook(functools.partial(_part, name=name))
    return model


def _part(module: nn.Module, inputs: Any, output: Any, *, name: str) -> Tensor:
    if isinstance(output, Tensor) and name == "logits":
        return output
    found = part_of(output, name)
    if isinstance(found, Tensor):
        return found
    said = f"; it has {', '.join(parts_of_output(output))}" if parts_of_output(output) else ""
    raise InputError(f"{type(module).__name__} returns a {type(output).__name__} without a tensor {name!r}{said}")


def part_of(output: Any, name: str) -> Any:
    """Return the part ``name`` of what a network returned, None if there is none."""
    if isinstance(output, (tuple, list)) and name.isdigit():
        return output[int(name)] if int(name) < len(output) else None
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def parts_of_output(output: Any) -> list[str]:
    """Return the names of the tensors in what a network returned."""
    if isinstance(output, (tuple, list)) and not hasattr(output, "_fields"):
        named: dict[str, Any] = {str(i): one for i, one in enumerate(output)}
    elif isinstance(output, Mapping):
        named = {str(name): one for name, one in output.items()}
    else:
        named = output._asdict() if hasattr(output, "_asdict") else getattr(output, "__dict__", {})
    return [name for name, one in named.items() if isinstance(one, Tensor)]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra that a missing library comes with."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(f"this needs the extra `{name}`: pip install 'alignscape[{name}]'") from error
