"""Plain networks, without any feedback inside, and the import of anybody else's."""

from collections.abc import Callable

import torch
from torch import nn

from alignscape.errors import InputError
from training.config import TrainConfig
from training.models.convolutional import AlexNet, LeNet
from training.models.imported import import_model
from training.models.mlp import MLP
from training.models.resnet import ResNet
from training.models.trial import try_forward

Shape = tuple[int, ...]  # of one input: C, H, W of an image


def _mlp(config: TrainConfig, input_shape: Shape, classes: int) -> nn.Module:
    return MLP(torch.Size(input_shape).numel(), config.hidden, classes, config.activation)


def _lenet(config: TrainConfig, input_shape: Shape, classes: int) -> nn.Module:
    return LeNet(_image(config, input_shape), classes, config.activation)


def _alexnet(config: TrainConfig, input_shape: Shape, classes: int) -> nn.Module:
    return AlexNet(_image(config, input_shape), classes, config.activation)


def _resnet20(config: TrainConfig, input_shape: Shape, classes: int) -> nn.Module:
    return ResNet(_image(config, input_shape)[0], 3, classes, config.activation)


def _image(config: TrainConfig, input_shape: Shape) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        shape = ", ".join(map(str, input_shape))
        raise InputError(f"--network {config.model} takes images (C, H, W); the data set has inputs of shape ({shape})")
    channels, height, width = input_shape
    return channels, height, width


MODELS: dict[str, Callable[[TrainConfig, Shape, int], nn.Module]] = {
    "mlp": _mlp,
    "lenet": _lenet,
    "alexnet": _alexnet,
    "resnet20": _resnet20,
}


def build_model(config: TrainConfig, input_shape: Shape, classes: int) -> nn.Module:
    """Build the network that ``config`` names for images of ``input_shape`` (C, H, W): one of ours, or another's
    (:func:`import_model`). Weights are not yet drawn from the run's seed (``Rule.initialise`` does that).

    Args:
        config: its ``model``, of ours ``activation`` and, for an MLP, ``hidden`` decide.
        input_shape: (C, H, W).
        classes: number of outputs.

    Raises:
        InputError: the model is unknown (the message lists the known ones) or does not take such images; another's
            cannot be imported, or has not one output for each class.

    Example:
        >>> from training import TrainConfig, build_model
        >>> model = build_model(TrainConfig(hidden=(16,)), (1, 8, 8), 10)
        >>> {name: tuple(p.shape) for name, p in model.named_parameters()}
        {'layers.0.weight': (16, 64), 'layers.0.bias': (16,), 'layers.1.weight': (10, 16), 'layers.1.bias': (10,)}
    """
    with torch.random.fork_rng(devices=[]):  # layers draw from torch's global stream when they are made
        if ":" in config.model:
            return _imported(config.model, input_shape, classes)
        if config.model not in MODELS:
            known = ", ".join((*MODELS, "torchvision:NAME", "timm:NAME", "package.module:factory"))
            raise InputError(f"unknown model {config.model!r}; known: {known}")
        return MODELS[config.model](config, input_shape, classes)


def _imported(reference: str, input_shape: Shape, classes: int) -> nn.Module:
    model = import_model(reference, classes=classes, flag="--network")
    outputs = try_forward(model, input_shape).shape[1]
    if outputs != classes:
        raise InputError(f"--network {reference} has {outputs} outputs; the data set has {classes} classes")
    return model


__all__ = ["MLP", "MODELS", "AlexNet", "LeNet", "ResNet", "build_model", "import_model", "try_forward"]
