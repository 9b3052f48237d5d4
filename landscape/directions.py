"""Directions that span a plane of weight space."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from landscape.parameters import flatten, select_parameters


def check_plane(directions: Tensor | Sequence[Tensor], size: int) -> Tensor:
    """Return ``directions`` as one tensor (2, P), unchanged in length.

    Lengths carry meaning (a coordinate is in units of its direction's length), so nothing is normalised here; nor
    is anything renormalised layer by layer, which would turn eigenvectors into something else.

    Raises:
        InputError: not two vectors of ``size`` elements, not finite, zero, or parallel.
    """
    plane = directions if isinstance(directions, Tensor) else torch.stack([d.reshape(-1) for d in directions])
    if plane.shape != (2, size):
        raise InputError(f"the plane needs 2 directions of {size} weights; these have shape {tuple(plane.shape)}")
    plane = plane.detach()
    if not torch.isfinite(plane).all():
        raise InputError("a direction holds NaN or infinite values; use finite directions")
    lengths = torch.linalg.vector_norm(plane, dim=1, dtype=torch.float64)
    if (lengths == 0).any():
        raise InputError("a direction is zero; use two non-zero directions")
    if abs(float(plane[0] @ plane[1]) / float(lengths.prod())) > 1 - 1e-5:
        raise InputError("the two directions are parallel; they span a line, not a plane")
    return plane


def filter_normalised_directions(
    model: nn.Module, *, seed: int, count: int = 2, params: Sequence[str] | None = None
) -> Tensor:
    """Return random directions (count, P) whose filters are as long as the model's own.

    Every filter of a weight (a slice along its first axis: an output channel of a convolution, a row of a Linear)
    gets a Gaussian direction scaled to the norm of that filter, so that coordinate 1 is a perturbation as large as
    the weights and nets of different scale can be compared. Biases and the scales and shifts of normalisation
    layers (parameters of fewer than 2 axes) do not move. Use a range of about -1 to 1.

    Args:
        model: any ``nn.Module``; it is not changed.
        seed: of the directions, the same on every device.
        count: number of directions.
        params: glob patterns of the parameters to move; all trainable ones if None.

    Raises:
        InputError: no parameter to move.

    Reference: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4.

    Example:
        >>> import torch
        >>> from landscape import filter_normalised_directions
        >>> model = torch.nn.Linear(3, 2)
        >>> first, second = filter_normalised_directions(model, seed=0)
        >>> row = model.weight[0].detach()
        >>> bool(torch.isclose(first[:3].norm(), row.norm()))
        True
        >>> first[6:]  # the biases stay
        tensor([0., 0.])
    """
    like = select_parameters(model, params)
    if not any(p.dim() > 1 and p.detach().any() for p in like.values()):
        raise InputError("the selected parameters have no weights with filters to normalise by; select others")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [flatten({n: _filter_normalised(p.detach(), generator) for n, p in like.items()}) for _ in range(count)]
    )


def _filter_normalised(weight: Tensor, generator: torch.Generator) -> Tensor:
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    # Drawn on the CPU so that a seed means the same directions on every device.
    draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64).flatten(1)
    scale = weight.flatten(1).double().norm(dim=1, keepdim=True).cpu() / draw.norm(dim=1, keepdim=True)
    return (draw * scale).reshape(weight.shape).to(weight)
