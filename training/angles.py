"""How well the path down agrees with the forward weights."""

from typing import NamedTuple

import torch
from torch import Tensor


class Alignment(NamedTuple):
    """Agreement of W with the matrix in its place on the way down, for one layer; made by :func:`alignment`.

    Attributes:
        row_angle: degrees; mean over the neurons of the angle between their rows (the IFA paper's measure).
        flat_angle: degrees; one angle between the flattened matrices (what other tools report).
        norm_ratio: ``|B| / |W|``, Frobenius.

    Example:
        >>> import torch
        >>> from training import alignment
        >>> found = alignment(torch.eye(2), torch.tensor([[2.0, 0.0], [2.0, 0.0]]))
        >>> round(found.row_angle, 3), round(found.flat_angle, 3), found.norm_ratio
        (45.0, 60.0, 2.0)
    """

    row_angle: float
    flat_angle: float
    norm_ratio: float


def alignment(weight: Tensor, backward_weight: Tensor) -> Alignment:
    """Compare ``weight`` W with ``backward_weight`` B, both (out, in) or (out, in, k, k).

    A zero row has no direction: its angle counts as 90 degrees.

    Args:
        weight: W, rows are neurons or filters.
        backward_weight: B, of the same shape; of a network, as ``Rule.backward_weights`` gives it.

    Example:
        >>> import torch
        >>> from training import TrainConfig, alignment, build_model, make_rule
        >>> rule = make_rule(TrainConfig(rule="ifa", angle=30, alignment="exact", hidden=(32, 32)))
        >>> model = build_model(rule.config, (1, 8, 8), 10)
        >>> rule.initialise(model)
        >>> twin = rule.wrap(model, (1, 8, 8))
        >>> {name: round(alignment(w, b).row_angle, 2) for name, (w, b) in rule.backward_weights(twin).items()}
        {'layers.1': 30.0, 'layers.2': 30.0}
    """
    w, b = weight.detach().double().flatten(1), backward_weight.detach().double().flatten(1)
    return Alignment(
        row_angle=_angle(w, b).mean().item(),
        flat_angle=angle_between(w, b),
        norm_ratio=(b.norm() / w.norm()).item(),
    )


def angle_between(a: Tensor, b: Tensor) -> float:
    """Degrees between two tensors of one shape, taken as vectors; 90 where one of them is 0."""
    return _angle(a.detach().double().reshape(1, -1), b.detach().double().reshape(1, -1)).item()


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between the rows of ``a`` and of ``b`` (N, D) -> (N,).

    Kahan's formula on unit vectors, 2 atan2(|a - b|, |a + b|): exact at 0 and 180 degrees, where arccos of a
    rounded cosine is wrong by up to 1e-6 degrees in float64 and by .03 in float32.
    """
    unit_a, unit_b = (x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) for x in (a, b))
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=1), (unit_a + unit_b).norm(dim=1))
    undirected = (a.norm(dim=1) == 0) | (b.norm(dim=1) == 0)
    return torch.where(undirected, 90.0, torch.rad2deg(angle))
