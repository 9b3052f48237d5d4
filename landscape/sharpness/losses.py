"""The loss at other weights than the model's own, in all and by groups of samples, with its derivatives."""

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from scipy import stats
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.trees import map_tensors, tensors_in
from landscape.data import Batch, Batches, Data, Loss, Reduction, Transform
from landscape.modes import analysis_mode, holding
from landscape.parameters import computing_dtype, flatten, select_parameters, unflatten, unwrapped
from landscape.traces import Estimate
from landscape.weights import BatchWeights, Denominator, mixing_layer

_BATCH = 500  # samples a pass, where the caller leaves it to us
_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss)


class LossAround:
    """The mean loss of a model over data as a function of its weights, a flat vector (P,).

    Args:
        model: any ``nn.Module``; it is not changed.
        loss: ``loss(outputs, targets)`` -> scalar.
        data: inputs and targets, or batches that can be read again; see :class:`landscape.HessianOperator`.
        params: glob patterns of the parameters that move; all trainable ones if None.
        groups: of samples, in the order of the data, for intervals over samples; at most as many as there are samples.
        reduction, denominator, batch_size, transform: as for :class:`landscape.HessianOperator`.

    Attributes:
        centre: the model's weights (P,).
        parameters: the selected parameters, by name: the layout of the flat vectors.
        n_samples: N.
        n_groups: G.
        shares: (G,) float64, what each group counts for; they sum to 1.

    Raises:
        InputError: no matching parameter or sample, weights that are not finite, a loss of a batch that is not the
            mean of those of its parts.

    Example:
        >>> import torch
        >>> from landscape import LossAround
        >>> model = torch.nn.Linear(2, 1, bias=False).double()
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        >>> around = LossAround(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1)))
        >>> around.value(torch.ones(2, dtype=torch.float64)), around.by_group(around.centre * 0 + 1).tolist()
        (5.0, [1.0, 9.0])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Data,
        *,
        params: Sequence[str] | None = None,
        groups: int = 50,
        reduction: Reduction | None = None,
        denominator: Denominator | None = None,
        batch_size: int | None = None,
        transform: Transform | None = None,
    ) -> None:
        self._model, self._loss = unwrapped(model), loss
        self._weights = BatchWeights(loss, reduction, denominator)
        chosen = select_parameters(self._model, params)
        dtype = computing_dtype(self._model, stacklevel=3)

        def own(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()

        everything = dict(self._model.named_parameters(remove_duplicate=True)) | dict(self._model.named_buffers())
        self._rest = {name: own(tensor) for name, tensor in everything.items() if name not in chosen}
        self.parameters = {name: own(p) for name, p in chosen.items()}
        self.centre = flatten(self.parameters)
        if not torch.isfinite(self.centre).all():
            raise InputError("the weights hold NaN or infinite values; did the training diverge?")
        self._batches = Batches(
            data,
            batch_size=batch_size or _BATCH,
            transform=transform,
            device=self.centre.device,
            dtype=self.centre.dtype,
        )
        self.n_samples = sum(batch.size for batch in self._batches)
        self.n_groups = max(1, min(groups, self.n_samples))
        self._check_batches_add_up()
        counts = torch.zeros(self.n_groups, dtype=torch.float64)
        for batch, places in self._grouped():
            counts.index_add_(0, places, self._sample_weights(batch))
        if not counts.sum() > 0:
            raise InputError("no sample counts: the loss ignores every target")
        self.shares = counts / counts.sum()
        self._total = float(counts.sum())

    def value(self, weights: Tensor) -> float:
        """Return the mean loss at ``weights`` (P,)."""
        with analysis_mode(self._model), torch.no_grad():
            total = 0.0
            for batch in self._batches:
                if (weight := self._weights.of(batch)) > 0:
                    total += float(batch.loss(self._loss, self._outputs(batch, weights))) * self._weights.scale(weight)
        return total / self._total

    def gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss at ``weights`` (P,) and its gradient (P,)."""
        at = weights.detach().requires_grad_()
        total, gradient = 0.0, torch.zeros_like(weights)
        with analysis_mode(self._model):
            for batch in self._batches:
                if (weight := self._weights.of(batch)) > 0:
                    with holding(self._model, self._tensors(at)):
                        scaled = batch.loss(self._loss, self._outputs(batch, at)) * self._weights.scale(weight)
                        gradient += torch.autograd.grad(scaled, at)[0]
                    total += float(scaled.detach())
        return total / self._total, gradient / self._total

    def gradient_of(self, groups: Tensor, weights: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss over the samples of some groups, bool (G,), at ``weights`` (P,), and its gradient (P,).

        Batches without such a sample are passed over.

        Raises:
            InputError: the groups hold no sample that counts, or the loss is no mean over samples.
        """
        at = weights.detach().requires_grad_()
        total, gradient, count = 0.0, torch.zeros_like(weights), 0.0
        with analysis_mode(self._model):
            for batch, places in self._grouped():
                counts = torch.where(groups[places], self._sample_weights(batch), 0.0)
                if not counts.sum() > 0:
                    continue
                with holding(self._model, self._tensors(at)):
                    losses = self._losses(batch, self._outputs(batch, at))
                    counts = counts.to(losses)
                    summed = torch.where(counts > 0, losses, 0.0) @ counts  # an ignored sample has no loss
                    gradient += torch.autograd.grad(summed, at)[0]
                total, count = total + float(summed.detach()), count + float(counts.sum())
        if not count > 0:
            raise InputError("no sample of these groups counts")
        return total / count, gradient / count

    def by_group(self, weights: Tensor) -> Tensor:
        """Return the mean loss of each group at ``weights`` (P,), float64 (G,)."""
        with analysis_mode(self._model), torch.no_grad():
            parts = [(places, self._losses(batch, self._outputs(batch, weights))) for batch, places in self._grouped()]
        return self._group_means(parts)

    def slopes(self, weights: Tensor, direction: Tensor, power: int = 1) -> Tensor:
        """Return the mean over each group of ``<gradient of a sample's loss, direction>^power``, float64 (G,).

        The inner products of all samples of a batch take two backward passes: one of their sum with weights that stay
        a variable, one of its inner product with ``direction`` by these.
        """
        at, parts = weights.detach().requires_grad_(), []
        with analysis_mode(self._model):
            for batch, places in self._grouped():
                with holding(self._model, self._tensors(at)):
                    losses = self._losses(batch, self._outputs(batch, at))
                    dummy = torch.ones_like(losses, requires_grad=True)
                    (gradient,) = torch.autograd.grad(losses, at, dummy, create_graph=True)
                    (slopes,) = torch.autograd.grad(gradient @ direction, dummy)
                parts.append((places, slopes**power))
        return self._group_means(parts)

    @functools.cached_property
    def _objection(self) -> str | None:
        """Why the loss of a batch, where it is none of torch's, is no mean over samples; None where it is one."""
        if self._weights.known:
            return None
        again = functools.partial(self._outputs, weights=self.centre)
        batch = next(iter(self._batches))
        with analysis_mode(self._model), torch.no_grad():
            return self._weights.objection(batch, again(batch), again)

    def _check_batches_add_up(self) -> None:
        if self._batches.is_whole and len(self._batches) == 1:
            return
        if (layer := mixing_layer(self._model)) is not None:
            raise InputError(f"{layer} computes with the statistics of its batch: give all samples as one batch")
        if self._objection is not None:
            raise InputError(self._objection)

    def _outputs(self, batch: Batch, weights: Tensor) -> Any:
        return batch.outputs(self._model, self._tensors(weights))

    def _tensors(self, weights: Tensor) -> dict[str, Tensor]:
        """Return parameters and buffers at ``weights`` (P,)."""
        return {**self._rest, **unflatten(weights, self.parameters)}

    def _grouped(self) -> Iterator[tuple[Batch, Tensor]]:
        """Yield each batch with the group of each of its samples (n,)."""
        first = 0
        for batch in self._batches:
            place = torch.arange(first, first + batch.size)
            first += batch.size
            yield batch, (place * self.n_groups).div(self.n_samples, rounding_mode="floor")

    def _group_means(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the weighted mean over each group of numbers of samples, given batch by batch."""
        sums = torch.zeros(self.n_groups, dtype=torch.float64)
        for (batch, _), (places, values) in zip(self._grouped(), parts, strict=True):
            weights = self._sample_weights(batch)
            known = torch.where(weights > 0, values.detach().cpu().double(), 0.0)  # an ignored sample has no loss
            sums.index_add_(0, places, weights * known)
        return sums / (self.shares * self._total).clamp(min=torch.finfo(torch.float64).tiny)

    def _sample_weights(self, batch: Batch) -> Tensor:
        """Return what each sample of a batch counts for, float64 (n,)."""
        if self._weights.reduction == "sum" or not self._weights.known:
            return torch.ones(batch.size, dtype=torch.float64)
        if _unreduced(self._loss, batch) is not None:
            return torch.full((batch.size,), self._weights.of(batch) / batch.size, dtype=torch.float64)
        return torch.tensor([self._weights.of(batch.cut(i, i + 1)) for i in range(batch.size)], dtype=torch.float64)

    def _losses(self, batch: Batch, outputs: Any) -> Tensor:
        """Return the loss of each sample (n,)."""
        unreduced = _unreduced(self._loss, batch)
        if unreduced is not None:
            return unreduced(outputs, *batch.targets).reshape(batch.size, -1).mean(dim=1)
        if self._objection is not None:
            raise InputError(f"intervals over samples need a loss that is a mean over them: {self._objection}")
        if not batch.can_be_cut or any(t.dim() == 0 or len(t) != batch.size for t in tensors_in(outputs)):
            raise InputError("intervals over samples need outputs and targets whose first axis is that of the samples")

        def loss_of(place: int) -> Tensor:
            row = functools.partial(lambda i, t: t[i : i + 1], place)
            return batch.cut(place, place + 1).loss(self._loss, map_tensors(row, outputs))

        return torch.stack([loss_of(place) for place in range(batch.size)])


def _unreduced(loss: Loss, batch: Batch) -> nn.Module | None:
    """Return a loss of torch's that gives a number for each sample, None for one that weighs samples, or that ignores
    a target of this batch."""
    plain = type(loss) in _LOSSES and getattr(loss, "weight", None) is None and getattr(loss, "reduction", "") == "mean"
    if not plain:
        return None
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and bool((batch.targets[0] == loss.ignore_index).any()):
        return None
    made: Any = copy.copy(loss)
    made.reduction = "none"
    return cast(nn.Module, made)


def interval(
    value: float, parts: Tensor, shares: Tensor, others: float = 0.0, *, freedom: float = float("inf")
) -> Estimate:
    """Return ``value`` with its 95 % Student interval over samples, of Welch and Satterthwaite's degrees of freedom.

    Args:
        value: what was found.
        parts: (G,) what each group adds to it to first order: its part of a mean of which ``value`` is a function.
        shares: (G,) what each group counts for; with fewer than two that count there is no interval (NaN).
        others: variance of errors that are independent of the samples, such as that of random draws.
        freedom: degrees of freedom of that variance; infinite where it is known.
    """
    groups = int((shares > 0).sum())
    if groups < 2:
        return Estimate(value=value, ci_low=float("nan"), ci_high=float("nan"))
    spread = parts - shares @ parts
    over_groups = float(((shares * spread) ** 2).sum()) * groups / (groups - 1)
    both = over_groups + others
    share = over_groups / both if both else 1.0
    inverse = share**2 / (groups - 1) + (1 - share) ** 2 / freedom  # of the degrees of freedom
    half = float(stats.t.ppf(0.975, 1 / inverse if inverse else float("inf"))) * both**0.5
    return Estimate(value=value, ci_low=value - half, ci_high=value + half)
