"""The edge of stability: how large the leading eigenvalue may be before an optimiser's steps overshoot.

On a quadratic loss with the Hessian H, gradient descent is stable along an eigenvector if and only if its eigenvalue is
below 2 / lr; with momentum below (2 + 2 m) / lr; Adam, with its second moments taken for constant, if the eigenvalue of
``D^-1/2 H D^-1/2`` is below (2 + 2 b1) / ((1 - b1) lr), which is 38 / lr at b1 = .9. Full-batch training drives that
eigenvalue up to its threshold, and then it hovers there (Cohen et al., ICLR 2021, eq. 1; Cohen et al. 2022, eq. 2).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.parameters import select_parameters
from landscape.symmetric import SymmetricOperator


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Where the steps of an optimiser become unstable; made by :func:`edge_of_stability`.

    Attributes:
        lr: the learning rate.
        threshold: the largest eigenvalue at which steps on a quadratic loss do not grow; inf for a rate of 0.
        preconditioned: the eigenvalue is that of ``D^-1/2 H D^-1/2``, not of H.
        preconditioner: D, (P,), the positive diagonal; None if it is not needed or not known yet (before Adam's first
            step).

    Example:
        >>> from landscape import Stability, gradient_descent_threshold
        >>> Stability(lr=0.5, threshold=gradient_descent_threshold(0.5)).threshold
        4.0
    """

    lr: float
    threshold: float
    preconditioned: bool = False
    preconditioner: Tensor | None = None


def gradient_descent_threshold(
    lr: float, momentum: float = 0.0, *, nesterov: bool = False, dampening: float = 0.0
) -> float:
    """Return the eigenvalue at which ``torch.optim.SGD`` becomes unstable: ``(2 + 2 m) / lr`` (Cohen et al. 2021).

    Args:
        lr: learning rate.
        momentum: m, of the heavy ball; 0 gives ``2 / lr``.
        nesterov: whether it is Nesterov's: ``(2 + 2 m) / ((1 + 2 m) lr)``.
        dampening: d of the momentum, by which each new gradient is scaled with 1 - d.

    Example:
        >>> from landscape import gradient_descent_threshold
        >>> gradient_descent_threshold(0.01), round(gradient_descent_threshold(0.01, 0.9), 6)
        (200.0, 380.0)
    """
    step = lr * (1 + 2 * momentum if nesterov else 1) * (1 - dampening if momentum else 1)
    return (2 + 2 * momentum) / step if step > 0 else math.inf


def adam_threshold(lr: float, beta1: float = 0.9) -> float:
    """Return the eigenvalue of ``D^-1/2 H D^-1/2`` at which Adam becomes unstable: ``(2 + 2 b1) / ((1 - b1) lr)``,
    38 / lr at .9 (Cohen et al. 2022, eq. 2).

    Args:
        lr: learning rate.
        beta1: decay of the first moment.

    Example:
        >>> from landscape import adam_threshold
        >>> round(adam_threshold(0.001), 3)
        38000.0
    """
    return gradient_descent_threshold(lr * (1 - beta1), beta1)


def adam_preconditioner(
    second_moment: Tensor, step: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Tensor:
    """Return Adam's D after ``step`` steps: ``(1 - b1^t) (sqrt(v / (1 - b2^t)) + eps)`` (Cohen et al. 2022).

    Args:
        second_moment: v, the running mean of squared gradients, of any shape.
        step: t, from 1.
        betas: decays of the moments.
        eps: that Adam adds.

    Example:
        >>> import torch
        >>> from landscape import adam_preconditioner
        >>> adam_preconditioner(torch.tensor([0.004]), 1, betas=(0.9, 0.999), eps=0.0)  # .1 sqrt(.004 / .001)
        tensor([0.2000])
    """
    beta1, beta2 = betas
    return (1 - beta1**step) * ((second_moment / (1 - beta2**step)).sqrt() + eps)


def edge_of_stability(optimiser: torch.optim.Optimizer, model: nn.Module) -> Stability | None:
    """Return where the steps that ``optimiser`` takes with ``model`` become unstable.

    Args:
        optimiser: ``SGD``, ``Adam`` or ``AdamW`` of ``torch.optim``, at its present learning rates. Groups may differ
            in their rate: D then scales with the inverse of each.
        model: whose trainable parameters it moves.

    Returns:
        None for other optimisers, for groups that differ in momentum or betas, and for parameters that the optimiser
        does not have: nothing is known of their edge. Weight decay is left out: as a part of the loss it would add
        itself to the eigenvalue.

    Example:
        >>> import torch
        >>> from landscape import edge_of_stability
        >>> model = torch.nn.Linear(2, 1)
        >>> edge_of_stability(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5), model).threshold
        300.0
        >>> adam = torch.optim.Adam(model.parameters(), lr=0.01)
        >>> edge_of_stability(adam, model).preconditioner is None  # no step was taken
        True
    """
    groups = _groups(optimiser, model)
    if groups is None:
        return None
    names = ("momentum", "nesterov", "dampening") if isinstance(optimiser, torch.optim.SGD) else ("betas", "eps")
    first = groups[0][1]
    if any(group[name] != first[name] for _, group in groups for name in names):
        return None
    lr = max(float(group["lr"]) for _, group in groups)
    # A smaller rate of a group is a larger D there: D^-1 lr is the same.
    # Where all are zero, at the ends of schedules, they do not differ.
    scales = [1.0 if lr == 0 else lr / float(group["lr"]) if group["lr"] else math.inf for _, group in groups]
    if isinstance(optimiser, torch.optim.SGD):
        threshold = gradient_descent_threshold(
            lr, first["momentum"], nesterov=first["nesterov"], dampening=first["dampening"]
        )
        if all(scale == 1 for scale in scales):
            return Stability(lr=lr, threshold=threshold)
        parts = [torch.full_like(p, scale).reshape(-1) for (p, _), scale in zip(groups, scales, strict=True)]
        return Stability(lr=lr, threshold=threshold, preconditioned=True, preconditioner=torch.cat(parts).detach())
    found = [_adam_part(optimiser, p, group, scale) for (p, group), scale in zip(groups, scales, strict=True)]
    known = [part for part in found if part is not None]
    return Stability(
        lr=lr,
        threshold=adam_threshold(lr, first["betas"][0]),
        preconditioned=True,
        preconditioner=torch.cat(known) if len(known) == len(found) else None,
    )


def _groups(optimiser: torch.optim.Optimizer, model: nn.Module) -> list[tuple[nn.Parameter, dict[str, Any]]] | None:
    """Return each trainable parameter with its group; None where one has none or nothing is known of the optimiser."""
    if type(optimiser) not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        return None
    owners = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    parameters = list(select_parameters(model).values())
    return [(p, owners[id(p)]) for p in parameters] if all(id(p) in owners for p in parameters) else None


def _adam_part(
    optimiser: torch.optim.Optimizer, parameter: nn.Parameter, group: dict[str, Any], scale: float
) -> Tensor | None:
    """Return the part of D that belongs to ``parameter``, flat; None before its first step."""
    state = optimiser.state.get(parameter, {})
    if "exp_avg_sq" not in state:
        return None
    moment = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].detach()
    return scale * adam_preconditioner(moment, float(state["step"]), group["betas"], group["eps"]).reshape(-1)


class Preconditioned:
    """``D^-1/2 H D^-1/2``, whose eigenvalues are those of ``D^-1 H``: a matrix like any :class:`SymmetricOperator`."""

    def __init__(self, operator: SymmetricOperator, preconditioner: Tensor) -> None:
        self._operator = operator
        self._scale = preconditioner.to(device=operator.device, dtype=operator.dtype).rsqrt()
        self.dim, self.dtype, self.device = operator.dim, operator.dtype, operator.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        """Return the matrix times each row of ``vectors`` (K, P)."""
        self.n_products += len(vectors)
        return self._operator.product(vectors * self._scale) * self._scale
