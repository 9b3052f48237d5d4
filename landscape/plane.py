"""The loss on a plane of weight space, at many points for one pass over the data."""

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.data import Batch, Batches, Data, Loss, Reduction, Transform, loss_reduction, tensor_pair
from landscape.graphs import analysis_mode
from landscape.plane_network import PlaneNetwork

Progress = Callable[[int, int], None]

# Elements of the widest activation of a chunk of samples: as many as keep the device busy, and no more memory.
_CHUNK = {"cpu": 2**20, "cuda": 2**23}
_PROBE = 2  # samples that the model is tried out on
_PILOT = 128  # samples that orders of magnitude are taken from


@dataclass(frozen=True, kw_only=True)
class PlaneValues:
    """What one pass over the data found.

    Attributes:
        losses: mean loss at each point, (M,), float64.
        hessian: second derivatives with respect to (alpha, beta) at the origin, by autograd, (2, 2), float64. NaN
            where the model has an operation without a second derivative.
    """

    losses: Tensor
    hessian: Tensor


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
        transform: applied to the inputs of every batch as it is read, such as the normalisation of uint8 images.

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
        transform: Transform | None = None,
    ) -> None:
        self.network = PlaneNetwork(model, loss, directions, origin=origin, params=params)
        self.reduction = loss_reduction(loss, reduction)
        self._batches = Batches(
            data, batch_size=_PROBE, transform=transform, device=self.network.device, dtype=self.network.dtype
        )
        inputs, targets = next(iter(self._batches))
        with analysis_mode(model):
            self.network.try_on((inputs[:_PROBE], targets[:_PROBE]))
        most = _CHUNK.get(self.network.device.type, _CHUNK["cuda"]) // self.network.widest
        self._chunk = max(1, most if batch_size is None else min(most, batch_size))
        self._batches.batch_size = self._chunk
        pair = tensor_pair(data)
        sized = len(data) if pair is None and isinstance(data, Sized) else None
        self._n_batches = sized if pair is None else -(-len(pair[0]) // self._chunk)

    def evaluate(self, points: Tensor, *, progress: Progress | None = None) -> PlaneValues:
        """Return the loss at ``points`` (M, 2) and the Hessian in the plane at the origin.

        ``progress`` is called with (points done, points in all), a point counting once for every batch; never
        where the data does not say how many batches it has.
        """
        losses = torch.zeros(len(points), dtype=torch.float64, device=self.network.device)
        hessian = torch.zeros(2, 2, dtype=torch.float64, device=self.network.device)
        samples = 0
        with analysis_mode(self.network.model):
            for index, batch in enumerate(self._batches):
                size = len(batch[0])
                for first, chunk in self._chunks(batch):
                    share = len(chunk[0]) / size
                    report = self._reporter(progress, len(points), index + first / size, share)
                    pre_activations = self.network.pre_activations(chunk[0])
                    scale = len(chunk[0]) if self.reduction == "mean" else 1
                    losses += scale * self.network.losses(pre_activations, chunk, points, report)
                    hessian += scale * self.network.hessian(pre_activations, chunk)
                samples += size
        return PlaneValues(losses=losses.cpu() / samples, hessian=hessian.cpu() / samples)

    def evaluate_elsewhere(
        self, vector: Callable[[int], Tensor], count: int, *, progress: Progress | None = None
    ) -> Tensor:
        """Return the mean loss at the flat vectors ``vector(0)``, ..., on the plane or not: (count,), float64."""
        losses = torch.zeros(count, dtype=torch.float64, device=self.network.device)
        samples = 0
        with analysis_mode(self.network.model):
            for index, batch in enumerate(self._batches):
                size = len(batch[0])
                for first, chunk in self._chunks(batch):
                    share = len(chunk[0]) / size
                    report = self._reporter(progress, count, index + first / size, share)
                    scale = len(chunk[0]) if self.reduction == "mean" else 1
                    for k in range(count):
                        losses[k] += scale * self.network.loss_at_vector(vector(k), chunk)
                        if report is not None:
                            report(k + 1)
                samples += size
        return losses.cpu() / samples

    def pilot(self) -> tuple[float, Tensor]:
        """Return loss and Hessian (2, 2) at the origin on a few samples: their order of magnitude."""
        with analysis_mode(self.network.model):
            inputs, targets = next(iter(self._batches))
            few = min(self._chunk, _PILOT)
            chunk = inputs[:few], targets[:few]
            pre_activations = self.network.pre_activations(chunk[0])
            value = self.network.losses(pre_activations, chunk, torch.zeros(1, 2))
            hessian = self.network.hessian(pre_activations, chunk)
        scale = 1 if self.reduction == "mean" else len(chunk[0])
        return float(value) / scale, hessian.cpu() / scale

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
