"""How weights and feedback start."""

import torch
from torch import Tensor, nn

from training.rules.wrapping import NORMALISATIONS


def normal(shape: torch.Size | tuple[int, ...], scale: float, random: torch.Generator) -> Tensor:
    """Draw N(0, scale^2 / fan_in) of ``shape`` (out, in, ...) on the generator's device."""
    return torch.randn(shape, generator=random, device=random.device) * (scale**2 / fan_in(shape)) ** 0.5


def fan_in(shape: torch.Size | tuple[int, ...]) -> int:
    """Number of weights of one neuron: of a row, or of a convolution's filter."""
    return torch.Size(shape[1:]).numel()


def orthogonal(size: int, random: torch.Generator) -> Tensor:
    """Draw a (size, size) orthogonal matrix, uniform over all of them (Mezzadri 2007, arXiv math-ph/0609050)."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=random, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def bernoulli(shape: torch.Size | tuple[int, ...], density: float, random: torch.Generator) -> Tensor:
    """Draw a mask of ``shape``: 1 with probability ``density``, else 0."""
    return (torch.rand(shape, generator=random) < density).float()


def reset_normalisation(model: nn.Module) -> None:
    """Set normalisation layers to their usual start: scale 1, shift 0, no statistics yet."""
    for module in model.modules():
        if isinstance(module, NORMALISATIONS):
            module.reset_parameters()
