"""Relative flatness: the Hessian of a layer against the size of its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignscape.errors import InputError
from landscape.operator import HessianOperator
from landscape.parameters import unflatten
from landscape.sharpness.congruent import Congruent, traced
from landscape.traces import Estimate


def relative_flatness(
    operator: HessianOperator,
    by_group: HessianOperator | None = None,
    *,
    tol: float = 0.05,
    max_probes: int = 200,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return the relative flatness of each weight layer, and their sum under the name ``""``.

    ``kappa = sum over s, s' of <w_s, w_s'> Tr(H_ss')`` (Petzka et al. 2021, definition 3), where w_s are the weights
    into neuron s (of a convolution: into channel s) and H_ss' is the block of the Hessian of w_s and w_s'. With the
    layer's weights as the rows of W (d, m) and ``W W^T = A A^T`` it is the trace of ``(A (x) I)^T H (A (x) I)``,
    which is estimated as any trace is: with random matrices Z, the curvature along ``A Z``.

    Large is sharp. A rescaling W -> c W of the layer divides H by c^2 and leaves kappa as it is.

    Args:
        operator: the curvature of all samples.
        by_group: the same with a batch for each group, for intervals over samples.
        tol: half-width of the sum's interval over probes to reach, relative to it.
        max_probes: stop here in any case.
        seed: of the probes.

    Raises:
        InputError: no parameter with two axes or more.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator, relative_flatness
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> _ = torch.nn.init.constant_(model.weight, 3.0)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> operator = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> found = relative_flatness(operator)  # |w|^2 = 18, and the trace is 1 + 4
        >>> {name: round(one.value, 6) for name, one in found.items()}
        {'': 90.0, 'weight': 90.0}
    """
    weights = {name: p for name, p in operator.parameters.items() if p.dim() > 1 and p.any()}
    if not weights:
        raise InputError("relative flatness is of weight matrices; the selected parameters have none that is not zero")
    roots = {name: _root(p.flatten(1)) for name, p in weights.items()}
    inner = {name: p.new_empty(roots[name].shape[1], p.flatten(1).shape[1]) for name, p in weights.items()}
    whole, cut = (None if one is None else _projected(one, roots, inner) for one in (operator, by_group))
    assert whole is not None
    return traced(whole, cut, layout=inner, tol=tol, max_probes=max_probes, seed=seed)


def _root(weight: Tensor) -> Tensor:
    """Return A (d, r) with ``A A^T = W W^T`` and as few columns as it takes, of W (d, m)."""
    left, sizes, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    kept = sizes > sizes.max() * torch.finfo(weight.dtype).eps
    return (left[:, kept] * sizes[kept]).to(weight)


def _projected(operator: HessianOperator, roots: Mapping[str, Tensor], inner: Mapping[str, Tensor]) -> Congruent:
    """Return the Hessian seen by the matrices Z of all layers, one behind the other."""

    def into(rows: Tensor) -> Tensor:
        whole = rows.new_zeros(len(rows), operator.dim)
        places = unflatten(whole, operator.parameters)
        for name, part in unflatten(rows, inner).items():
            places[name].copy_((roots[name] @ part).view_as(places[name]))
        return whole

    def back(rows: Tensor) -> Tensor:
        parts = unflatten(rows, operator.parameters)
        found = [roots[name].mT @ parts[name].flatten(2) for name in inner]
        return torch.cat([part.flatten(1) for part in found], dim=1)

    return Congruent(operator, into, back, sum(part.numel() for part in inner.values()))
