"""The mode that a model is analysed in: as it predicts, and twice differentiable."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.stateless import _reparametrize_module
from torch.overrides import TorchFunctionMode


@contextmanager
def analysis_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate ``model`` as it predicts (no dropout, running statistics) and twice differentiable.

    Every submodule gets its own mode back. The fused attention kernels have no second derivative, so attention
    runs on its MATH kernel, and so do cuDNN's recurrent layers, which have none either; what ``torch.compile`` made
    runs eagerly, its backward pass cannot be differentiated. See also :class:`TwiceDifferentiable`.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.backends.cudnn.flags(enabled=_cudnn(model)))
            stack.enter_context(TwiceDifferentiable())
            if "torch._dynamo" in sys.modules:  # nothing is compiled without it, and it takes seconds to import
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def holding(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put ``tensors`` in the place of the model's own parameters and buffers, also while gradients are taken: that is
    when checkpointed segments run again, with what the model holds then."""
    with _reparametrize_module(model, dict(tensors), tie_weights=True):
        yield


def _cudnn(model: nn.Module) -> bool:
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    return torch.backends.cudnn.enabled and not recurrent


class TwiceDifferentiable(TorchFunctionMode):
    """Replaces operations whose second derivative torch has not, or has wrong, by others with the same values.

    - The fused weight normalisation: its second derivative takes the norm for a constant (Hessians 29 to 55 % off,
      and not symmetric).
    - Embeddings with ``sparse`` or ``scale_grad_by_freq``: gradients that cannot be differentiated, or are none.
    - ``embedding_bag``: its gradient has no derivative.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function``, or what takes its place."""
        return _REPLACED.get(function, function)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _embedding(
    indices: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return F.embedding(indices, weight, padding_idx, max_norm, norm_type)


def _embedding_bag(
    indices: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return sums, means or maxima of the rows of each bag, (B, D)."""
    if indices.dim() == 2:
        offsets = torch.arange(0, indices.numel(), indices.shape[1], device=indices.device)
        indices = indices.reshape(-1)
        per_sample_weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    if offsets is None:
        raise ValueError("indices of one axis need offsets")
    starts = offsets[:-1] if include_last_offset else offsets
    bag = torch.bucketize(torch.arange(len(indices), device=indices.device), starts, right=True) - 1
    if padding_idx is not None:
        kept = indices != padding_idx % len(weight)
        indices, bag = indices[kept], bag[kept]
        per_sample_weights = None if per_sample_weights is None else per_sample_weights[kept]
    rows = F.embedding(indices, weight, None, max_norm, norm_type)
    empty = rows.new_zeros(len(starts), weight.shape[1])
    if mode == "max":
        return _largest(rows, bag, empty)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    sums = empty.index_add(0, bag, rows)
    if mode == "mean":
        sums = sums / torch.bincount(bag, minlength=len(starts)).clamp(min=1)[:, None]
    return sums


def _largest(rows: Tensor, bag: Tensor, empty: Tensor) -> Tensor:
    """Return the maxima of ``rows`` (M, D) in each bag, (B, D), differentiable through the first row that has it."""
    places = bag[:, None].expand_as(rows)
    with torch.no_grad():
        most = torch.full_like(empty, -torch.inf).scatter_reduce(0, places, rows, "amax")
        number = torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)
        candidates = torch.where(rows == most[bag], number, len(rows))
        first = torch.full(empty.shape, len(rows), device=rows.device).scatter_reduce(0, places, candidates, "amin")
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).gather(0, first)


_REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    torch._weight_norm: _weight_norm,
    F.embedding: _embedding,
    F.embedding_bag: _embedding_bag,
}
