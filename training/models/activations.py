"""Activations of our networks by name, as functions and as modules, each with the constants that torch gives it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import ACTIVATED, TrainConfig

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


def activation_of(config: TrainConfig) -> Callable[[Tensor], Tensor]:
    """Return the activation of a network of ours; ReLU stands for that of any other."""
    return FUNCTIONS[config.activation if ACTIVATED.holds(config) else "relu"]
