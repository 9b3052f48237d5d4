"""Plain networks, without any feedback inside, and the import of anybody else's."""

import importlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.errors import InputError


class MLP(nn.Module):
    """Linear layers with ReLU between them; images (N, ...) are flattened to (N, features) first.

    ``layers.0`` is the first hidden layer, the last of ``layers`` gives the logits (N, classes).
    """

    def __init__(self, features: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        widths = (features, *hidden, classes)
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def _mlp(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    channels, height, width = input_shape
    return MLP(channels * height * width, config.hidden, classes)


MODELS: dict[str, Callable[[TrainConfig, tuple[int, int, int], int], nn.Module]] = {"mlp": _mlp}


def build_model(config: TrainConfig, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network that ``config`` names for images of ``input_shape`` (C, H, W); weights are not yet drawn
    from the run's seed (``Rule.initialise`` does that).

    Raises:
        InputError: the model is unknown; the message lists the known ones.
    """
    if config.model not in MODELS:
        raise InputError(f"unknown model {config.model!r}; known: {', '.join(MODELS)}")
    return MODELS[config.model](config, input_shape, classes)


def import_model(reference: str) -> nn.Module:
    """Build the network that ``reference`` names: ``package.module:factory`` (called without arguments; modules in
    the current folder are found), ``torchvision:NAME`` or ``timm:NAME``, both without their weights.

    Raises:
        InputError: the reference has another form, or cannot be imported or called, or gives no ``nn.Module``.
    """
    source, _, name = reference.partition(":")
    if not source or not name:
        raise InputError(f"--model {reference!r} must be package.module:factory, torchvision:NAME or timm:NAME")
    try:
        model = _zoo_model(source, name) if source in ("torchvision", "timm") else _call_factory(source, name)
    except Exception as error:  # whatever the user's own code raises becomes one line that names it
        text = str(error).splitlines()[0] if str(error) else ""
        raise InputError(f"--model {reference}: {type(error).__name__}: {text}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {reference} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _zoo_model(source: str, name: str) -> nn.Module:
    if source == "torchvision":
        from torchvision.models import get_model

        return get_model(name, weights=None)
    import timm  # the optional extra

    return timm.create_model(name, pretrained=False)


def _call_factory(module: str, name: str) -> nn.Module:
    here = os.fspath(Path.cwd())
    if here not in sys.path:  # a console script, unlike `python -m`, does not look in the current folder
        sys.path.insert(0, here)
    return getattr(importlib.import_module(module), name)()
