"""The differentiable graph of one batch, kept so that every further vector costs one backward pass.

Building ``L(theta)`` and its gradient with ``create_graph=True`` takes about as long as one Hessian-vector
product through it, so a graph that is kept halves the price of the second vector and of all that follow.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from alignscape.errors import InputError
from alignscape.trees import map_tensors, tensors_in
from landscape.data import Batch, Loss


class BatchGraph(Protocol):
    """What the operator asks of one batch. The batch's loss is reduced as the user's ``loss`` reduces it.

    Attributes:
        loss: of the batch.
        gradient: one tensor per parameter in order; None where the loss does not use the parameter.
    """

    loss: float
    gradient: list[Tensor | None]

    def products(
        self, vectors: Sequence[Tensor], columns: Sequence[int] | None = None, rows: Sequence[int] | None = None
    ) -> list[Tensor | None]:
        """Return curvature times vectors, one tensor (K, *shape) per parameter for ``vectors`` of that shape.

        With ``columns`` the vectors are those of these parameters, the others' being zero; with ``rows`` only these
        are returned. What neither needs is not computed.
        """

    def nbytes(self) -> int:
        """Return the bytes that keeping this graph holds."""


class HessianGraph:
    """The gradient of one batch's loss as a function of ``parameters``; its vector-Jacobian products are ``H v``.

    ``together`` takes several vectors through the graph at once, which pays where calls cost more than arithmetic.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], *, together: bool) -> None:
        self._together = together
        self.loss = float(loss.detach())
        self._parameters = list(parameters)
        grads: Sequence[Tensor | None] = [None] * len(self._parameters)
        if loss.requires_grad:
            grads = _grad(loss, self._parameters, create_graph=True, allow_unused=True)
        self.gradient = [None if g is None else g.detach() for g in grads]
        self._live = _live(grads)

    def products(
        self, vectors: Sequence[Tensor], columns: Sequence[int] | None = None, rows: Sequence[int] | None = None
    ) -> list[Tensor | None]:
        grads, given = _chosen(self._live, vectors, columns)
        wanted = self._parameters if rows is None else [self._parameters[row] for row in rows]
        if not grads:
            return [None] * len(wanted)
        return _vector_jacobian(grads, wanted, given, self._together)

    def nbytes(self) -> int:
        return graph_bytes([edge.node for _, edge in self._live])


class GaussNewtonGraph:
    """``J^T (d2 loss / d outputs^2) J`` of one batch (Schraudolph 2002), positive semidefinite for convex losses.

    For cross-entropy it is the Fisher information matrix. ``J v`` is taken by differentiating ``J^T w`` in ``w``. Of
    outputs that are several tensors, in tuples or mappings, those count that the loss depends on.
    """

    def __init__(self, outputs: Any, loss: Loss, batch: Batch, parameters: Sequence[Tensor], *, together: bool) -> None:
        self._together = together
        self._parameters = list(parameters)
        leaves: list[Tensor] = []
        value = batch.loss(loss, map_tensors(lambda t: _as_leaf(t, leaves), outputs))
        self.loss = float(value.detach())
        grads: Sequence[Tensor | None] = [None] * len(leaves)
        if value.requires_grad:
            grads = _grad(value, leaves, create_graph=True, allow_unused=True)
        of_parameters = [t for t in tensors_in(outputs) if t.requires_grad]
        used = [(out, leaf, g) for out, leaf, g in zip(of_parameters, leaves, grads, strict=True) if g is not None]
        if used and all(out.dim() == 0 for out, _, _ in used) and not any(g.requires_grad for _, _, g in used):
            raise InputError(
                "the model returns its loss, of which the Gauss-Newton matrix knows no outputs: give a loss of what "
                "the model predicts"
            )
        self._outputs, self._leaves = [out for out, _, _ in used], [leaf for _, leaf, _ in used]
        slopes = [g for _, _, g in used]
        self.gradient: list[Tensor | None] = [None] * len(self._parameters)
        self._curved = _live(slopes)
        self._weights = [torch.zeros_like(out).requires_grad_() for out in self._outputs]
        self._live: list[tuple[int, GradientEdge]] = []
        if used:
            flat = [g.detach() for g in slopes]
            self.gradient = list(_grad(self._outputs, self._parameters, flat, retain_graph=True, allow_unused=True))
            pulled = _grad(self._outputs, self._parameters, self._weights, create_graph=True, allow_unused=True)
            self._live = _live(pulled)

    def products(
        self, vectors: Sequence[Tensor], columns: Sequence[int] | None = None, rows: Sequence[int] | None = None
    ) -> list[Tensor | None]:
        wanted = self._parameters if rows is None else [self._parameters[row] for row in rows]
        none: list[Tensor | None] = [None] * len(wanted)
        pullback, given = _chosen(self._live, vectors, columns)
        if not pullback or not self._curved:
            return none
        pushed = _vector_jacobian(pullback, self._weights, given, self._together)
        pairs = [(edge, pushed[place]) for place, edge in self._curved]
        moved = [(edge, vector) for edge, vector in pairs if vector is not None]
        if not moved:
            return none
        curved = _vector_jacobian([edge for edge, _ in moved], self._leaves, [v for _, v in moved], self._together)
        back = [(out, vector) for out, vector in zip(self._outputs, curved, strict=True) if vector is not None]
        if not back:
            return none
        return _vector_jacobian([out for out, _ in back], wanted, [v for _, v in back], self._together)

    def nbytes(self) -> int:
        ends = [tensor.grad_fn for tensor in self._outputs if tensor.grad_fn is not None]
        return graph_bytes([*ends, *(edge.node for _, edge in (*self._live, *self._curved))])


class DifferenceGraph:
    """The Hessian of one batch less its Gauss-Newton part: ``sum_c dL/dz_c d2 z_c / d theta^2``, the outputs' own
    curvature."""

    def __init__(self, whole: HessianGraph, part: GaussNewtonGraph) -> None:
        self._whole, self._part = whole, part
        self.loss, self.gradient = whole.loss, whole.gradient
        part.gradient = []

    def products(
        self, vectors: Sequence[Tensor], columns: Sequence[int] | None = None, rows: Sequence[int] | None = None
    ) -> list[Tensor | None]:
        both = (graph.products(vectors, columns, rows) for graph in (self._whole, self._part))
        return [a if b is None else -b if a is None else a - b for a, b in zip(*both, strict=True)]

    def nbytes(self) -> int:
        return self._whole.nbytes() + self._part.nbytes()  # what they share counts twice: kept graphs stay in bounds


def _as_leaf(tensor: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return an output cut off from the parameters, noted in ``leaves`` where it depends on them."""
    if not tensor.requires_grad:
        return tensor
    leaves.append(tensor.detach().requires_grad_())
    return leaves[-1]


def _grad(outputs: Any, inputs: Any, grad_outputs: Any = None, **options: Any) -> tuple[Tensor, ...]:
    """``torch.autograd.grad``, with what has no second derivative told in a line.

    Raises:
        InputError: an operation of the model or the loss cannot be differentiated twice.
    """
    try:
        return torch.autograd.grad(outputs, inputs, grad_outputs, **options)
    except RuntimeError as error:
        told = str(error)
        if "use_reentrant=True" in told:
            raise InputError(
                "the model checkpoints segments with use_reentrant=True, which has no second derivative: call "
                "torch.utils.checkpoint.checkpoint with use_reentrant=False"
            ) from error
        if "derivative for" in told or "once_differentiable" in told or "double backward" in told:
            raise InputError(f"an operation of the model or the loss has no second derivative: {told}") from error
        raise


def _live(grads: Sequence[Tensor | None]) -> list[tuple[int, GradientEdge]]:
    """Return which gradients have a graph, as its edges: the gradients themselves would be P numbers a batch.

    A gradient without a graph is constant: the parameter enters linearly and its row of H is zero.
    """
    return [(i, get_gradient_edge(g)) for i, g in enumerate(grads) if g is not None and g.requires_grad]


def _chosen(
    live: Sequence[tuple[int, GradientEdge]], vectors: Sequence[Tensor], columns: Sequence[int] | None
) -> tuple[list[GradientEdge], list[Tensor]]:
    """Return the edges that have a vector, with their vectors."""
    given = dict(zip(range(len(vectors)) if columns is None else columns, vectors, strict=True))
    found = [(edge, given[index]) for index, edge in live if index in given]
    return [edge for edge, _ in found], [vector for _, vector in found]


def _vector_jacobian(
    outputs: Sequence[Tensor] | Sequence[GradientEdge],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor],
    together: bool,
) -> list[Tensor | None]:
    """Return the K vector-Jacobian products of ``outputs``; ``vectors`` have a leading axis K."""
    count = len(vectors[0])
    if together and count > 1:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return list(_grad(outputs, inputs, vectors, retain_graph=True, allow_unused=True, is_grads_batched=True))
    rows = [_grad(outputs, inputs, [v[k] for v in vectors], retain_graph=True, allow_unused=True) for k in range(count)]
    if count == 1:
        return [None if part is None else part[None] for part in rows[0]]
    return [None if column[0] is None else torch.stack(column) for column in zip(*rows, strict=True)]


def graph_bytes(roots: Sequence[Node]) -> int:
    """Return the bytes of the distinct storages that the autograd graph from ``roots`` down saves.

    A view of a larger tensor (a batch cut from a data set) counts for its own size. Leaves, the parameters, do not,
    nor do views of them.
    """
    storages: dict[int, int] = {}
    leaves: set[int] = set()
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaves.add(leaf.untyped_storage().data_ptr())
        for tensor in _saved_tensors(node):
            storage = tensor.untyped_storage()
            size = min(storage.nbytes(), tensor.numel() * tensor.element_size())
            storages[storage.data_ptr()] = max(size, storages.get(storage.data_ptr(), 0))
        stack.extend(below for below, _ in node.next_functions if below is not None)
    return sum(size for storage, size in storages.items() if storage not in leaves)


def _saved_tensors(node: Node) -> Iterator[Tensor]:
    for name in dir(node):
        if not name.startswith("_saved_") and name != "saved_tensors":  # the latter of functions of our own
            continue
        value = getattr(node, name)
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, Tensor):
                yield part
