"""How weights and feedback start."""

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.rules.wrapping import NORMALISATIONS


def starting(
    config: TrainConfig,
    shape: torch.Size | tuple[int, ...],
    scale: float,
    random: torch.Generator,
    of: torch.Size | tuple[int, ...] | None = None,
) -> Tensor:
    """Draw what weights or feedback of ``shape`` start from, on the generator's device: of the distribution that
    ``config`` names, with mean 0 and variance scale^2 / :func:`fan` of a weight of the shape ``of`` (None: this)."""
    deviation = (scale**2 / fan(config, shape if of is None else of)) ** 0.5
    if config.init_distribution == "uniform":
        return (2 * torch.rand(shape, generator=random, device=random.device) - 1) * (3**0.5 * deviation)
    return torch.randn(shape, generator=random, device=random.device) * deviation


def fan(config: TrainConfig, shape: torch.Size | tuple[int, ...]) -> int:
    """Return what divides the variance of a weight's start. At a scale of sqrt 2 it gives what ``config.init`` is named
    after: fan_in (He et al. 2015, eq. 10), fan_in + fan_out (Glorot and Bengio 2010, eq. 12), 2 fan_in (LeCun et al.
    1998, section 4.6)."""
    if config.init == "xavier":
        return fan_in(shape) + fan_out(shape)
    return fan_in(shape) * (2 if config.init == "lecun" else 1)


def fan_out(shape: torch.Size | tuple[int, ...]) -> int:
    """Number of weights that an input meets: of a column, or of a channel's in all filters."""
    return shape[0] * torch.Size(shape[2:]).numel()


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
