"""The loss on a plane of weight space, at many points for one pass over the data."""

import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from landscape.affine import Affine, AffineLayer, find_affine_layers, forwards_replaced
from landscape.data import Batch, Batches, Data, Loss, Reduction, loss_reduction, tensor_pair
from landscape.graphs import analysis_mode
from landscape.parameters import flatten, select_parameters, unflatten
from training.errors import InputError

Progress = Callable[[int, int], None]

# Elements of the widest activation of a chunk of samples, and of all points evaluated together. On a CPU a chunk
# stays in the cache and one point keeps the cores busy unless the network is tiny; a GPU wants many points at once.
_CHUNK = {"cpu": 2**20, "cuda": 2**23}
_TOGETHER = {"cpu": 2**17, "cuda": 2**26}
_PROBE = 2  # samples that the model is tried out on
_PILOT = 128  # samples that orders of magnitude are taken from


@dataclass(frozen=True, kw_only=True)
class PlaneValues:
    """What one pass over the data found."""

    losses: Tensor
    """Mean loss at each point, (M,), float64."""
    hessian: Tensor
    """Second derivatives with respect to (alpha, beta) at the origin, by autograd, (2, 2), float64. NaN where the
    model has an operation without a second derivative."""


class PlaneLoss:
    """``L(a, b)``: the mean over samples of the loss at ``origin + a directions[0] + b directions[1]``.

    The model is evaluated functionally in eval mode (BatchNorm with its running statistics); its weights, buffers,
    gradients and mode stay as they are.

    Args:
        model: any ``nn.Module`` called with one tensor.
        loss: ``loss(outputs, targets)`` -> scalar.
        data: (inputs (N, ...), targets (N, ...)) or a re-iterable of such batches.
        directions: (2, P), see :func:`landscape.directions.check_plane`.
        origin: flat vector (P,); the model's weights if None.
        params: glob patterns of the parameters that the flat vectors hold; all trainable ones if None.
        reduction: whether ``loss`` is a ``"mean"`` or ``"sum"`` over its batch; None reads ``loss.reduction``, and
            takes a plain function for a mean.
        batch_size: most samples evaluated together; what suits the device if None.

    Raises:
        InputError: origin not finite, or sizes that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Data,
        directions: Tensor,
        *,
        origin: Tensor | None = None,
        params: Sequence[str] | None = None,
        reduction: Reduction | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.loss = model, loss
        self.reduction = loss_reduction(loss, reduction)
        like = self._like = select_parameters(model, params)
        first = next(iter(like.values()))
        self.device, self.dtype = first.device, first.dtype
        self.origin = self._placed(flatten(like) if origin is None else origin)
        if not torch.isfinite(self.origin).all():
            raise InputError("the weights hold NaN or infinite values; did the training diverge?")
        self._moving = unflatten(self._placed(directions), like)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        still = {name: p.detach() for name, p in model.named_parameters()}
        self._tensors: dict[str, Tensor] = {**still, **buffers, **unflatten(self.origin, like)}
        self._batches = Batches(data, batch_size=_PROBE, device=self.device, dtype=self.dtype)
        self._data = data
        self._batch_size = batch_size
        self._layers: list[AffineLayer] = []
        self._batched = True  # until an operation turns out not to work under vmap
        self._widest = 1
        self._prepare_rest()
        with analysis_mode(model):
            self._probe()

    @property
    def affine_layers(self) -> list[nn.Module]:
        """The layers that are computed three times for all points together."""
        return [layer.module for layer in self._layers]

    def evaluate(self, points: Tensor, *, progress: Progress | None = None) -> PlaneValues:
        """Return the loss at ``points`` (M, 2) and the Hessian in the plane at the origin.

        ``progress`` is called with (points done, points in all), a point counting once for every batch; never
        where the data does not say how many batches it has.
        """
        losses = torch.zeros(len(points), dtype=torch.float64, device=self.device)
        hessian = torch.zeros(2, 2, dtype=torch.float64, device=self.device)
        samples = 0
        with analysis_mode(self.model):
            for index, batch in enumerate(self._batches):
                size = len(batch[0])
                for first, chunk in self._chunks(batch):
                    share = len(chunk[0]) / size
                    report = self._reporter(progress, len(points), index + first / size, share)
                    pre_activations = self._pre_activations(chunk[0])
                    scale = len(chunk[0]) if self.reduction == "mean" else 1
                    losses += scale * self._losses(pre_activations, chunk, points, report)
                    hessian += scale * self._hessian(pre_activations, chunk)
                samples += size
        return PlaneValues(losses=losses.cpu() / samples, hessian=hessian.cpu() / samples)

    def evaluate_elsewhere(
        self, vector: Callable[[int], Tensor], count: int, *, progress: Progress | None = None
    ) -> Tensor:
        """Return the mean loss at the flat vectors ``vector(0)``, ..., on the plane or not: (count,), float64."""
        losses = torch.zeros(count, dtype=torch.float64, device=self.device)
        samples = 0
        with analysis_mode(self.model), torch.no_grad():
            for index, batch in enumerate(self._batches):
                for first, (inputs, targets) in self._chunks(batch):
                    size = len(batch[0])
                    report = self._reporter(progress, count, index + first / size, len(inputs) / size)
                    scale = len(inputs) if self.reduction == "mean" else 1
                    for k in range(count):
                        tensors = {**self._tensors, **unflatten(self._placed(vector(k)), self._like)}
                        outputs = functional_call(self.model, tensors, (inputs,))
                        losses[k] += scale * self._scalar(self.loss(outputs, targets))
                        if report is not None:
                            report(k + 1)
                samples += len(batch[0])
        return losses.cpu() / samples

    def pilot(self) -> tuple[float, Tensor]:
        """Return loss and Hessian (2, 2) at the origin on a few samples: their order of magnitude."""
        with analysis_mode(self.model):
            inputs, targets = next(iter(self._batches))
            few = min(self._chunk, _PILOT)
            chunk = inputs[:few], targets[:few]
            pre_activations = self._pre_activations(chunk[0])
            value = self._losses(pre_activations, chunk, torch.zeros(1, 2))
            hessian = self._hessian(pre_activations, chunk)
        scale = 1 if self.reduction == "mean" else len(chunk[0])
        return float(value) / scale, hessian.cpu() / scale

    def _placed(self, vector: Tensor) -> Tensor:
        return vector.detach().to(device=self.device, dtype=self.dtype)

    def _chunks(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        for first in range(0, len(batch[0]), self._chunk):
            yield first, (batch[0][first : first + self._chunk], batch[1][first : first + self._chunk])

    def _reporter(
        self, progress: Progress | None, points: int, start: float, share: float
    ) -> Callable[[int], None] | None:
        """Return what to call with the number of points done of a chunk that is ``share`` of a batch."""
        if progress is None or self._n_batches is None:
            return None
        total = points * self._n_batches
        return lambda done: progress(min(round(points * start + done * share), total), total)

    # -- the model at a point ------------------------------------------------------------------------------------

    def _loss_at(self, rest: Tensor, pre_activations: Sequence[Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of one chunk where the rest of the moving parameters is the flat vector ``rest``."""
        forwards = {layer.module: partial(_given, z) for layer, z in zip(self._layers, pre_activations, strict=True)}
        tensors = {**self._tensors, **unflatten(rest, self._rest_like)}
        with forwards_replaced(forwards):
            outputs = functional_call(self.model, tensors, (inputs,))
        return self._scalar(self.loss(outputs, targets))

    def _scalar(self, value: Tensor) -> Tensor:
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InputError("the loss must return one number for a batch; use reduction='mean' or 'sum'")
        return value.reshape(())

    @torch.no_grad()
    def _pre_activations(self, inputs: Tensor) -> list[Affine]:
        """Return the pre-activations of the affine layers on ``inputs``, at every point of the plane."""
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
            functional_call(self.model, self._tensors, (inputs,))
        return [found[layer.module] for layer in self._layers]

    @torch.no_grad()
    def _losses(
        self,
        pre_activations: Sequence[Affine],
        chunk: Batch,
        points: Tensor,
        report: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return the loss of one chunk, reduced as the user's loss does, at ``points`` (M, 2): (M,), float64."""
        group = _TOGETHER.get(self.device.type, _TOGETHER["cuda"]) // (len(chunk[0]) * self._widest)
        if group > 1 and self._batched:
            try:
                return self._losses_together(pre_activations, chunk, points, group, report)
            except RuntimeError:  # an operation that vmap does not know, or the points do not fit the memory
                self._batched = False
        values = torch.empty(len(points), dtype=torch.float64, device=self.device)
        for k, (alpha, beta) in enumerate(points.tolist()):
            z = [affine.at(alpha, beta) for affine in pre_activations]
            values[k] = self._loss_at(self._rest.at(alpha, beta), z, *chunk)
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
        inputs, targets = chunk
        together = vmap(lambda rest, z: self._loss_at(rest, z, inputs, targets))
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

    def _hessian(self, pre_activations: Sequence[Affine], chunk: Batch) -> Tensor:
        """Return the Hessian (2, 2) of the chunk's loss at the origin, float64, NaN where it has none."""
        found = torch.zeros(2, 2, dtype=torch.float64, device=self.device)
        point = torch.zeros(2, dtype=self.dtype, device=self.device, requires_grad=True)
        z = [affine.differentiable(point) for affine in pre_activations]
        value = self._loss_at(self._rest.differentiable(point), z, *chunk)
        if not value.requires_grad:
            return found
        try:
            (slope,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
            for k in range(2 if slope.requires_grad else 0):
                (found[k],) = torch.autograd.grad(slope[k], point, retain_graph=True, materialize_grads=True)
        except RuntimeError:  # an operation of the model or the loss has no second derivative
            found.fill_(torch.nan)
        return found

    # -- how the model is evaluated ------------------------------------------------------------------------------

    def _prepare_rest(self) -> None:
        """Lay out the moving parameters that are not in an affine layer as one flat affine vector."""
        affine = frozenset[str]().union(*(layer.names for layer in self._layers))
        self._rest_like = {name: self._tensors[name] for name in self._moving if name not in affine}
        rest = [torch.cat([self._tensors[n].reshape(1, -1), self._moving[n].reshape(2, -1)]) for n in self._rest_like]
        empty = torch.empty(3, 0, dtype=self.dtype, device=self.device)
        self._rest = Affine(torch.cat([empty, *rest], dim=1))

    def _probe(self) -> None:
        """Find the affine layers and the size of chunks by running the model on a few samples."""
        inputs, targets = next(iter(self._batches))
        chunk = inputs[:_PROBE], targets[:_PROBE]
        self._widest = self._widest_activation(chunk[0])
        self._chunk = max(1, _CHUNK.get(self.device.type, _CHUNK["cuda"]) // self._widest)
        if self._batch_size is not None:
            self._chunk = min(self._chunk, self._batch_size)
        self._batches.batch_size = self._chunk
        pair = tensor_pair(self._data)
        sized = len(self._data) if pair is None and isinstance(self._data, Sized) else None
        self._n_batches = sized if pair is None else -(-len(pair[0]) // self._chunk)
        layers = find_affine_layers(self.model, self._tensors, self._moving, chunk[0])
        plain = self._displaced_loss(chunk)
        self._layers = layers
        self._prepare_rest()
        # A weight that is used outside its layer, or a detach() before it, would fool the search: compare.
        tolerance = torch.finfo(self.dtype).eps ** 0.5
        if not torch.isclose(self._displaced_loss(chunk), plain, rtol=tolerance, atol=tolerance, equal_nan=True):
            self._layers = []
            self._prepare_rest()

    @torch.no_grad()
    def _displaced_loss(self, chunk: Batch) -> Tensor:
        """Return the loss far enough from the origin (a tenth of its norm) to tell two evaluations apart."""
        squares = sum(v.reshape(2, -1).double().square().sum(1) for v in self._moving.values())
        lengths = torch.as_tensor(squares).sqrt().clamp(min=torch.finfo(self.dtype).tiny)
        alpha, beta = (0.1 * (self.origin.double().norm() + 1e-3) / lengths).tolist()
        z = [affine.at(alpha, beta) for affine in self._pre_activations(chunk[0])]
        return self._loss_at(self._rest.at(alpha, beta), z, *chunk)

    @torch.no_grad()
    def _widest_activation(self, inputs: Tensor) -> int:
        """Return the number of elements a sample of the largest tensor that a module computes (views are free)."""
        widest = 1

        def note(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            nonlocal widest
            read = {arg.data_ptr() for arg in args if isinstance(arg, Tensor)}
            if isinstance(output, Tensor) and output.data_ptr() not in read:
                widest = max(widest, output.numel() // len(inputs))

        hooks = [module.register_forward_hook(note) for module in self.model.modules()]
        try:
            functional_call(self.model, self._tensors, (inputs,))
        finally:
            for hook in hooks:
                hook.remove()
        return widest


def _given(z: Tensor, *_: object, **__: object) -> Tensor:
    return z
