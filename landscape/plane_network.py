"""A network and its loss on a plane of weights, for one chunk of samples at a time."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from alignscape.errors import InputError
from alignscape.trees import tensors_in
from landscape.affine import Affine, AffineLayer, find_affine_layers, forwards_replaced
from landscape.data import Batch, Loss
from landscape.parameters import computing_dtype, flatten, select_parameters, unflatten

# Elements of the widest activations that are evaluated together, and from how many points on that pays. On a CPU only
# networks that take less time than the calls gain (2.5x at 1,600 elements a point, a third slower from 10,000 on);
# a GPU wants many points at once.
_TOGETHER = {"cpu": 2**17, "cuda": 2**26}
_LEAST_GROUP = {"cpu": 16, "cuda": 2}


class PlaneNetwork:
    """``loss(model(x), y)`` at ``origin + a directions[0] + b directions[1]``, evaluated functionally.

    Layers that are affine on the plane give their pre-activations once for all points (:meth:`pre_activations`);
    everything else that moves is one flat vector that is affine in (a, b).

    Args:
        model, loss, origin, params: as for :class:`landscape.plane.PlaneLoss`.
        directions: (2, P).
        dtype: to compute in; the parameters' own if None, or float32 if that is of half precision.

    Raises:
        InputError: the origin is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        directions: Tensor,
        *,
        origin: Tensor | None,
        params: Sequence[str] | None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.loss = model, loss
        self._like = select_parameters(model, params)
        first = next(iter(self._like.values()))
        promoted = computing_dtype(model, stacklevel=5) if dtype is None else dtype
        self.device, self.dtype = first.device, promoted or first.dtype

        def frozen(tensor: Tensor) -> Tensor:
            return tensor.detach().to(promoted) if promoted and tensor.is_floating_point() else tensor.detach()

        self.origin = self._placed(flatten(self._like) if origin is None else origin)
        if not torch.isfinite(self.origin).all():
            raise InputError("the weights hold NaN or infinite values; did the training diverge?")
        self._moving = unflatten(self._placed(directions), self._like)
        buffers = {name: frozen(buffer).clone() for name, buffer in model.named_buffers()}
        still = {name: frozen(p) for name, p in model.named_parameters()}
        self._tensors: dict[str, Tensor] = {**still, **buffers, **unflatten(self.origin, self._like)}
        self._batched = True  # until an operation turns out not to work under vmap
        self.widest = 1
        """Elements a sample of the largest activation, once :meth:`try_on` has been called."""
        self._use([])

    @property
    def affine_layers(self) -> list[nn.Module]:
        """The layers that are computed three times for all points together."""
        return [layer.module for layer in self._layers]

    def try_on(self, chunk: Batch) -> None:
        """Run the model on a few samples to find its affine layers and its largest activation."""
        self.widest = self._widest_activation(chunk)
        plain = self._displaced_outputs(chunk)
        self._use(find_affine_layers(self.model, self._tensors, self._moving, chunk))
        if self._layers and (self._uses_affine_parameters(chunk) or not _close(self._displaced_outputs(chunk), plain)):
            self._use([])

    def _uses_affine_parameters(self, chunk: Batch) -> bool:
        """Whether a parameter of an affine layer has a part in the outputs besides that layer's: a weight used twice.

        Autograd tells: given the layers' pre-activations, the outputs must not depend on their parameters.
        """
        names = sorted(frozenset[str]().union(*(layer.names for layer in self._layers)))
        tensors = {n: t.detach().requires_grad_(n in names) for n, t in self._tensors.items()}
        given = {
            layer.module: partial(_given, z.parts[0].clone())
            for layer, z in zip(self._layers, self.pre_activations(chunk), strict=True)
        }
        with forwards_replaced(given):
            found = [t for t in tensors_in(chunk.outputs(self.model, tensors)) if t.requires_grad]
        if not found:
            return False
        total = torch.stack([t.sum() for t in found]).sum()
        grads = torch.autograd.grad(total, [tensors[name] for name in names], allow_unused=True)
        return any(grad is not None for grad in grads)

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Any:
        """Return the model's outputs at the origin."""
        return batch.outputs(self.model, self._tensors)

    @torch.no_grad()
    def pre_activations(self, chunk: Batch) -> list[Affine]:
        """Return the pre-activations of the affine layers on a chunk, at every point of the plane."""
        if not self._layers:
            return []
        found: dict[nn.Module, Affine] = {}

        def capture(layer: AffineLayer, x: Tensor) -> Tensor:
            found[layer.module] = layer.pre_activations(x)
            return found[layer.module].parts[0].clone()  # an in-place ReLU may come next

        forwards: dict[nn.Module, Callable[..., Tensor]] = {
            layer.module: partial(capture, layer) for layer in self._layers
        }
        with forwards_replaced(forwards):
            chunk.outputs(self.model, self._tensors)
        return [found[layer.module] for layer in self._layers]

    @torch.no_grad()
    def losses(
        self,
        pre_activations: Sequence[Affine],
        chunk: Batch,
        points: Tensor,
        report: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return the loss of one chunk, reduced as the user's loss does, at ``points`` (M, 2): (M,), float64."""
        kind = self.device.type if self.device.type in _TOGETHER else "cuda"
        group = _TOGETHER[kind] // (chunk.size * self.widest)
        if group >= _LEAST_GROUP[kind] and self._batched:
            try:
                return self._losses_together(pre_activations, chunk, points, group, report)
            except RuntimeError:  # an operation that vmap does not know, or the points do not fit the memory
                self._batched = False
        values = torch.empty(len(points), dtype=torch.float64, device=self.device)
        for k, (alpha, beta) in enumerate(points.tolist()):
            z = [affine.at(alpha, beta) for affine in pre_activations]
            values[k] = self._loss_at(self._rest.at(alpha, beta), z, chunk)
            if report is not None:
                report(k + 1)
        return values

    def _losses_together(
        self,
        pre_activations: Sequence[Affine],
        chunk: Batch,
        points: Tensor,
        group: int,
        report: Callable[[int], None] | None,
    ) -> Tensor:
        together = vmap(lambda rest, z: self._loss_at(rest, z, chunk))
        values = torch.empty(len(points), dtype=torch.float64, device=self.device)
        for first in range(0, len(points), group):
            some = points[first : first + group].to(self.device)
            z = [affine.many(some) for affine in pre_activations]
            with warnings.catch_warnings():  # an operation that vmap runs point by point is no worse than we would
                warnings.filterwarnings("ignore", message="There is a performance drop")
                values[first : first + group] = together(self._rest.many(some), z)
            if report is not None:
                report(first + len(some))
        return values

    def hessian(self, pre_activations: Sequence[Affine], chunk: Batch) -> Tensor:
        """Return the Hessian (2, 2) of the chunk's loss at the origin, float64, NaN where it has none."""
        found = torch.zeros(2, 2, dtype=torch.float64, device=self.device)
        point = torch.zeros(2, dtype=self.dtype, device=self.device, requires_grad=True)
        z = [affine.differentiable(point) for affine in pre_activations]
        value = self._loss_at(self._rest.differentiable(point), z, chunk)
        if not value.requires_grad:
            return found
        try:
            (slope,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
            for k in range(2 if slope.requires_grad else 0):
                (found[k],) = torch.autograd.grad(slope[k], point, retain_graph=True, materialize_grads=True)
        except RuntimeError:  # an operation of the model or the loss has no second derivative
            found.fill_(torch.nan)
        return found

    @torch.no_grad()
    def loss_at_vector(self, vector: Tensor, chunk: Batch) -> Tensor:
        """Return the loss of one chunk at the flat vector ``vector`` (P,), on the plane or not."""
        tensors = {**self._tensors, **unflatten(self._placed(vector), self._like)}
        return chunk.loss(self.loss, chunk.outputs(self.model, tensors))

    def _loss_at(self, rest: Tensor, pre_activations: Sequence[Tensor], chunk: Batch) -> Tensor:
        """Return the loss of one chunk where the rest of the moving parameters is the flat vector ``rest``."""
        return chunk.loss(self.loss, self._outputs_at(rest, pre_activations, chunk))

    def _outputs_at(self, rest: Tensor, pre_activations: Sequence[Tensor], chunk: Batch) -> Any:
        forwards = {layer.module: partial(_given, z) for layer, z in zip(self._layers, pre_activations, strict=True)}
        tensors = {**self._tensors, **unflatten(rest, self._rest_like)}
        with forwards_replaced(forwards):
            return chunk.outputs(self.model, tensors)

    def _placed(self, vector: Tensor) -> Tensor:
        return vector.detach().to(device=self.device, dtype=self.dtype)

    def _use(self, layers: list[AffineLayer]) -> None:
        """Take ``layers`` as affine, and lay out the other moving parameters as one flat affine vector."""
        self._layers = layers
        affine = frozenset[str]().union(*(layer.names for layer in layers))
        self._rest_like = {name: self._tensors[name] for name in self._moving if name not in affine}
        rest = [torch.cat([self._tensors[n].reshape(1, -1), self._moving[n].reshape(2, -1)]) for n in self._rest_like]
        empty = torch.empty(3, 0, dtype=self.dtype, device=self.device)
        self._rest = Affine(torch.cat([empty, *rest], dim=1))

    @torch.no_grad()
    def _displaced_outputs(self, chunk: Batch) -> list[Tensor]:
        """Return the outputs far enough from the origin (a tenth of its norm) to tell two evaluations apart."""
        norm = partial(torch.linalg.vector_norm, dtype=torch.float64)
        lengths = norm(torch.stack([norm(v.reshape(2, -1), dim=1) for v in self._moving.values()]), dim=0)
        far = 0.1 * (float(norm(self.origin)) + 1e-3)
        alpha, beta = (far / lengths.clamp(min=torch.finfo(self.dtype).tiny)).tolist()
        z = [affine.at(alpha, beta) for affine in self.pre_activations(chunk)]
        return [t.clone() for t in tensors_in(self._outputs_at(self._rest.at(alpha, beta), z, chunk))]

    @torch.no_grad()
    def _widest_activation(self, chunk: Batch) -> int:
        """Return the number of elements a sample of the largest tensor that a module computes (views are free)."""
        widest = 1

        def note(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            nonlocal widest
            read = {arg.data_ptr() for arg in args if isinstance(arg, Tensor)}
            if isinstance(output, Tensor) and output.data_ptr() not in read:
                widest = max(widest, output.numel() // chunk.size)

        hooks = [module.register_forward_hook(note) for module in self.model.modules()]
        try:
            chunk.outputs(self.model, self._tensors)
        finally:
            for hook in hooks:
                hook.remove()
        return widest


def _close(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Whether the outputs agree but for rounding, relative to the largest of each."""
    for one, other in zip(found, wanted, strict=True):
        if one.is_floating_point():
            tolerance = torch.finfo(one.dtype).eps ** 0.5 * float(other.abs().max()) if other.numel() else 0.0
            if not torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True):
                return False
    return True


def _given(z: Tensor, *_: object, **__: object) -> Tensor:
    return z
