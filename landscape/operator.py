"""Curvature as a matrix that is only ever multiplied: ``H v`` of the mean loss over a data set."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import torch
from torch import Tensor, nn
from torch import distributed as dist

from alignscape.errors import DivergedError, InputError
from landscape.algebra import OperatorAlgebra
from landscape.convolution import DirectConvolutions
from landscape.data import Batch, Batches, Data, Loss, Reduction, Transform
from landscape.distributed import all_sum
from landscape.graphs import BatchGraph, DifferenceGraph, GaussNewtonGraph, HessianGraph
from landscape.modes import analysis_mode, holding
from landscape.parameters import computing_dtype, flatten, select_parameters, unflatten, unwrapped
from landscape.weights import BatchWeights, Denominator, mixing_layer, samples_mix

Curvature = Literal["full", "ggn", "difference"]

# Below this many multiply-adds a product, the time goes into calls: several vectors share them (measured: 4x on a
# 700-parameter net with 100 samples, 1.2x at 2e6, none above). A GPU needs far more work to be kept busy.
_OVERHEAD_BOUND = {"cpu": 2e6, "cuda": 2e10}
_LARGEST_BATCH = 2000
_CPU_BUDGET = 2**30


class OperatorOptions(TypedDict, total=False):
    """Keyword arguments of :class:`HessianOperator` that the analysis functions pass on."""

    params: Sequence[str] | None
    hessian: Curvature
    reduction: Reduction | None
    denominator: Denominator | None
    batch_size: int | None
    memory_budget: float | None
    transform: Transform | None
    group: "dist.ProcessGroup | None"


@dataclass(frozen=True)
class Restricted:
    """A product that is asked of a part of the matrix.

    Attributes:
        vectors: (K, columns of the part).
        columns: positions of the parameters that the vectors are of.
        rows: positions of the parameters that the images are of.
    """

    vectors: Tensor
    columns: tuple[int, ...]
    rows: tuple[int, ...]


class HessianOperator(OperatorAlgebra):
    """The Hessian (or Gauss-Newton matrix) of the loss averaged over all samples, at the model's present weights.

    The model is evaluated in eval mode (no dropout, BatchNorm with its running statistics) on copies of its
    parameters and buffers: its mode, ``.grad`` and statistics stay as they are, and changing the model later does
    not change the operator. Graphs are kept between products as far as ``memory_budget`` goes; the batches beyond
    it are recomputed at every product, with the same result.

    Args:
        model: any ``nn.Module``. What ``torch.compile`` or ``DataParallel`` wrap is taken out of them; weights of
            half precision are computed with in float32, with a warning.
        loss: ``loss(outputs, targets)`` -> scalar.
        data: (inputs (N, ...), targets (N, ...)) or a re-iterable of such batches. Inputs that are a tuple or list
            are given to the model as positional arguments, a mapping by name; what follows the targets is given to
            the loss too. A batch that is one mapping goes whole to both: ``model(**batch)``, ``loss(outputs,
            batch)``. With ``group``, the part of this process; parts may differ in size.
        params: glob patterns on parameter names; the matrix is restricted to the matching rows and columns.
        hessian: ``"full"``, ``"ggn"`` (``J^T H_L J``, for cross-entropy the Fisher information matrix), or
            ``"difference"``, the first less the second: what the outputs' own curvature adds.
        reduction: whether ``loss`` is the mean or the sum over its batch; None reads ``loss.reduction``, and takes
            a plain function for a mean. The matrix is that of the *mean over samples* either way.
        denominator: what a mean over a batch divides by, called with what the loss gets after the outputs, such as
            ``lambda targets: (targets != -100).sum()``. None means what is known of torch's own losses (class
            weights, ``ignore_index``), and the number of samples for others, which is tried on every batch.
        batch_size: samples a batch where ``data`` is a pair of tensors; None chooses what fits the budget.
        memory_budget: bytes for kept graphs; None means 1 GiB on a CPU and half of the free memory on a GPU.
        transform: applied to the inputs of every batch as it is read: with the normalisation of uint8 images the
            data set keeps its quarter of the memory of floats.
        group: processes (``torch.distributed``) whose sums are added up; None means this process alone.

    Attributes:
        dim: P, the number of selected parameters.
        dtype: the model's.
        device: the model's.
        n_samples: N over all processes.
        n_products: vectors multiplied so far.
        loss: the mean loss.
        gradient: its gradient (P,).

    Raises:
        InputError: NaN or infinite weights or loss, no matching parameter, no sample, data that cannot be read
            twice, a loss that is not a scalar or has no gradient to any parameter of the model; several batches of
            a loss or a model whose batches cannot be averaged (a loss that divides by something unknown, BatchNorm
            without running statistics); an operation without a second derivative.

    Example:
        >>> import torch
        >>> from landscape import HessianOperator
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> hessian.product(torch.eye(2, dtype=torch.float64))
        tensor([[1., 0.],
                [0., 9.]], dtype=torch.float64)
        >>> hessian @ inputs[1]
        tensor([ 0., 27.], dtype=torch.float64)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Data,
        *,
        params: Sequence[str] | None = None,
        hessian: Curvature = "full",
        reduction: Reduction | None = None,
        denominator: Denominator | None = None,
        batch_size: int | None = None,
        memory_budget: float | None = None,
        transform: Transform | None = None,
        group: "dist.ProcessGroup | None" = None,
    ) -> None:
        if hessian not in get_args(Curvature):
            raise InputError(f"unknown curvature {hessian!r}; use 'full' or 'ggn', or their 'difference'")
        model = unwrapped(model)
        self._model, self._loss, self._hessian, self._group = model, loss, hessian, group
        self._weights = BatchWeights(loss, reduction, denominator)
        self._parameters, self._tensors = _frozen_copies(model, params)
        self._whole = params is None
        first = next(iter(self._parameters.values()))
        self.dtype, self.device = first.dtype, first.device
        self.dim = sum(p.numel() for p in self._parameters.values())
        self.n_products = 0
        self._runs_again = False
        self._budget = _default_budget(self.device) if memory_budget is None else memory_budget
        self._batches = Batches(data, batch_size=batch_size, transform=transform, device=self.device, dtype=self.dtype)
        if self._batches.is_whole and batch_size is None and mixing_layer(model) is None:
            self._batches.batch_size = self._fitting_batch_size()
        self._kept: dict[int, tuple[BatchGraph, float]] = {}
        self._all_kept = False
        self._first_pass()

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The selected parameters, by name: the layout of the flat vectors."""
        return {name: p.detach() for name, p in self._parameters.items()}

    def product(self, vectors: Tensor) -> Tensor:
        """Return ``H v`` for each row of ``vectors``: (K, P) -> (K, P), or (P,) -> (P,)."""
        rows = vectors.reshape(-1, self.dim).to(self.dtype)
        total = torch.zeros_like(rows)
        if len(rows) == 0:
            return total.reshape(vectors.shape)
        for graph, weight in self._graphs():
            self._add_products(total, graph, rows, self._weights.scale(weight))
        self.n_products += len(rows)
        return all_sum(total, self._group).div_(self._divisor).reshape(vectors.shape)

    def restricted_products(self, requests: Sequence["Restricted"]) -> list[Tensor]:
        """Return the products of parts of the matrix, (K, rows of the part) each, all in one pass over the data.

        A part takes the time of what its rows and columns need: a diagonal block of an early layer nearly that of a
        product, one of a late layer a small share of it.
        """
        names = list(self._parameters)
        totals = [self._parts_of(request.vectors, request.rows) for request in requests]
        for graph, weight in self._graphs():
            scale = self._weights.scale(weight)
            for total, request in zip(totals, requests, strict=True):
                like = {names[place]: self._parameters[names[place]] for place in request.columns}
                vectors = list(unflatten(request.vectors.to(self.dtype), like).values())
                with self._ready():
                    products = graph.products(vectors, request.columns, request.rows)
                like = {names[place]: self._parameters[names[place]] for place in request.rows}
                for place, product in zip(unflatten(total, like).values(), products, strict=True):
                    if product is not None:
                        place.add_(product, alpha=scale)
        self.n_products += sum(len(request.vectors) for request in requests)
        return [all_sum(total, self._group).div_(self._divisor) for total in totals]

    def _parts_of(self, vectors: Tensor, rows: Sequence[int]) -> Tensor:
        sizes = [p.numel() for p in self._parameters.values()]
        return torch.zeros(len(vectors), sum(sizes[row] for row in rows), dtype=self.dtype, device=self.device)

    def products_by_batch(self, vectors: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Yield (weight, mean-loss ``H v`` (K, P)) batch by batch, of this process's data.

        A batch weighs what its mean divides by, its number of samples as a rule.
        """
        rows = vectors.to(self.dtype)
        self.n_products += len(rows)
        for graph, weight in self._graphs():
            part = torch.zeros_like(rows)
            self._add_products(part, graph, rows, self._weights.scale(weight) / weight)
            yield weight, part

    def _add_products(self, total: Tensor, graph: BatchGraph, rows: Tensor, scale: float) -> None:
        """Add ``scale`` times the graph's curvature times ``rows`` (K, P) to ``total`` in place."""
        with self._ready():
            products = graph.products(list(unflatten(rows, self._parameters).values()))
        for place, product in zip(unflatten(total, self._parameters).values(), products, strict=True):
            if product is not None:
                place.add_(product, alpha=scale)

    def _graphs(self) -> Iterator[tuple[BatchGraph, float]]:
        if self._all_kept:
            yield from self._kept.values()
            return
        for index, batch in enumerate(self._batches):
            if index in self._kept:
                yield self._kept[index]
            elif (weight := self._weights.of(batch)) > 0:
                yield self._graph(batch)[0], weight

    def _graph(self, batch: Batch) -> tuple[BatchGraph, Any]:
        """Return the graph of one batch, and the model's outputs on it."""
        parameters = list(self._parameters.values())
        together = self.dim * batch.size <= _OVERHEAD_BOUND.get(self.device.type, 0)
        with analysis_mode(self._model), DirectConvolutions() as mode:
            outputs = batch.outputs(self._model, self._tensors)
            self._runs_again = self._runs_again or mode.hooked
            with self._ready():
                value = batch.loss(self._loss, outputs)
                if self._hessian == "full":
                    return HessianGraph(value, parameters, together=together), outputs
                part = GaussNewtonGraph(outputs, self._loss, batch, parameters, together=together)
                if self._hessian == "ggn":
                    return part, outputs
                return DifferenceGraph(HessianGraph(value, parameters, together=together), part), outputs

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Have the model as its graphs were made, where segments of it run again in each product (checkpoints)."""
        if not self._runs_again:
            yield
            return
        with analysis_mode(self._model), holding(self._model, self._tensors):
            yield

    def _first_pass(self) -> None:
        """Keep the graphs that fit, and sum the loss and its gradient on the way."""
        room = self._budget
        samples, divisor, loss, counted = 0, 0.0, 0.0, 0
        differentiable, objection = False, None
        gradient = torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        for index, batch in enumerate(self._batches):
            samples, weight = samples + batch.size, self._weights.of(batch)
            if weight == 0:  # all of its targets are ignored
                continue
            graph, outputs = self._graph(batch)
            if not math.isfinite(graph.loss):
                raise DivergedError("the loss is not finite at these weights; its curvature is undefined")
            counted, objection = counted + 1, objection or self._objection(batch, outputs, first=counted == 0)
            if objection and (counted > 1 or self._group is not None):
                raise InputError(objection)
            scale = self._weights.scale(weight)
            divisor, loss = divisor + weight, loss + graph.loss * scale
            gradient += scale * self._flat(graph.gradient)
            differentiable = differentiable or any(part is not None for part in graph.gradient)
            size = self._nbytes(graph) if room > 0 else 0
            room -= size
            if room > 0:
                graph.gradient = []
                self._kept[index] = graph, weight
        if counted and not differentiable and self._whole:
            raise InputError(
                "the loss has no gradient to the parameters: it does not depend on them, or something in the model "
                "detaches, rounds to integers or runs without autograd"
            )
        self._all_kept = len(self._kept) == counted
        sums = all_sum(torch.tensor([samples, divisor, loss], dtype=torch.float64, device=self.device), self._group)
        self.n_samples, self._divisor = int(sums[0]), float(sums[1])
        if self._divisor == 0:
            raise InputError("no sample counts: the loss ignores every target, or the denominator is 0 in every batch")
        self.loss = float(sums[2]) / self._divisor
        self.gradient = all_sum(gradient, self._group) / self._divisor

    def _objection(self, batch: Batch, outputs: Any, *, first: bool) -> str | None:
        """Return why this batch cannot be averaged with others, None where it can or is the only one."""
        only_one = self._batches.is_whole and len(self._batches) == 1 and self._group is None
        layer = mixing_layer(self._model)
        if only_one or layer is not None:
            if first and layer is not None and only_one:
                warnings.warn(
                    f"{layer} computes with the statistics of its batch, also in eval mode: this is the Hessian of "
                    f"all {batch.size} samples as one batch; another number of samples has another one",
                    stacklevel=4,
                )
            return None if only_one else _mixed(f"{layer} computes with the statistics of its batch")

        def again(part: Batch) -> Any:
            with analysis_mode(self._model):
                return part.outputs(self._model, {name: t.detach() for name, t in self._tensors.items()})

        if first and samples_mix(batch, outputs, again):
            return _mixed("the model's outputs for a sample depend on the other samples of its batch")
        return self._weights.objection(batch, outputs, again)

    def _flat(self, gradient: list[Tensor | None]) -> Tensor:
        parts = zip(self._parameters.items(), gradient, strict=True)
        return flatten({name: torch.zeros_like(p) if g is None else g for (name, p), g in parts}).detach()

    def _fitting_batch_size(self) -> int:
        """Return the batch size whose graph takes a quarter of the budget, as a few samples' graph foretells."""
        batch = self._batches.first(4)
        each = self._nbytes(self._graph(batch)[0]) / batch.size
        return int(min(max(self._budget / 4 / max(each, 1), 1), _LARGEST_BATCH))

    def _nbytes(self, graph: BatchGraph) -> int:
        with self._ready():
            return graph.nbytes()


def _mixed(why: str) -> str:
    return f"{why}: means over batches are not the mean over all samples; give all samples as one batch (batch_size=N)"


def _frozen_copies(model: nn.Module, params: Sequence[str] | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return copies: (selected parameters, differentiable; all parameters and buffers), and check they are finite."""
    selected = select_parameters(model, params)
    dtype = computing_dtype(model, stacklevel=4)

    def frozen(tensor: Tensor) -> Tensor:
        return tensor.detach().to(
            dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype, copy=True
        )

    everything = {name: frozen(p) for name, p in model.named_parameters()}
    for name, tensor in everything.items():
        if not torch.isfinite(tensor).all():
            raise DivergedError(f"parameter {name} holds NaN or infinite values; did the training diverge?")
    for name in selected:
        everything[name].requires_grad_()
    chosen = {name: everything[name] for name in selected}
    kinds = {(p.dtype, p.device) for p in chosen.values()}
    if len(kinds) > 1:
        raise InputError("the selected parameters differ in dtype or device; curvature needs one of each")
    everything.update((name, frozen(buffer)) for name, buffer in model.named_buffers())
    return chosen, everything


def _default_budget(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    return _CPU_BUDGET
