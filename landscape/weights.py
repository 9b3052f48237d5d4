"""What the loss of a batch divides by: how much it counts in the loss over all batches.

A mean over a batch is ``sum_i a_i / sum_i w_i``. The loss over all data is the quotient of both sums over *all*
batches, so a batch counts by its ``sum_i w_i``: the number of samples as a rule, but the sum of the class weights for
``CrossEntropyLoss(weight=...)``, the number of tokens that are not padding for ``ignore_index``. Averaging by samples
made Hessian-vector products 27 and 38 % wrong there.

What a loss divides by is known for torch's own losses and can be given for any other (``denominator``). Where it is
not known, every batch is tried: its loss must be the mean of those of its halves, or it is refused.
"""

import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignscape.errors import InputError
from alignscape.trees import map_tensors, tensors_in
from landscape.data import Batch, Loss, Reduction, loss_reduction

Denominator: TypeAlias = Callable[..., Any]

_BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.NLLLoss2d)
_BY_ELEMENT = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
    *(nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss, nn.PoissonNLLLoss, nn.GaussianNLLLoss),
)
_FUNCTIONS: dict[Any, nn.Module] = {
    F.cross_entropy: nn.CrossEntropyLoss(),
    F.nll_loss: nn.NLLLoss(),
    F.mse_loss: nn.MSELoss(),
    F.l1_loss: nn.L1Loss(),
    F.binary_cross_entropy: nn.BCELoss(),
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss(),
}
_SMALLEST = (
    4  # samples that a model gets halves of: one that squeezes its output takes a half of one for something else
)
_FAILURES = RuntimeError, ValueError  # of models and losses that fit batches of one size alone: nothing can be told


class BatchWeights:
    """What each batch counts for, and whether the loss agrees.

    Args:
        loss: ``loss(outputs, targets, ...)`` -> scalar.
        reduction: as for :func:`landscape.data.loss_reduction`.
        denominator: called with the targets of a batch (what the loss gets after the outputs), returns what the mean
            over it divides by; None for what is known of the loss, or else the number of samples.

    Attributes:
        reduction: ``"mean"`` or ``"sum"``.
        known: what the loss divides by needs no trying.
    """

    def __init__(self, loss: Loss, reduction: Reduction | None, denominator: Denominator | None) -> None:
        self.reduction: Reduction = loss_reduction(loss, reduction)
        self._loss = loss
        self._denominator = denominator
        known = self.reduction == "sum" or denominator is not None
        self._divides = None if known else _divisor(_FUNCTIONS.get(_hashable(loss), loss))
        self.known = self._divides is not None

    def of(self, batch: Batch) -> float:
        """Return what ``batch`` counts for; 0 for one whose targets are all ignored.

        Raises:
            InputError: the denominator given returns no finite number that is at least 0.
        """
        if self._denominator is not None:
            value = float(self._denominator(*batch.targets))
            if not 0 <= value < float("inf"):
                raise InputError(f"the denominator of a batch is {value}; it must be a finite number, 0 or more")
            return value
        return float(batch.size) if self._divides is None else self._divides(batch)

    def scale(self, weight: float) -> float:
        """Return by what the loss of a batch of this weight is multiplied before batches are added up."""
        return weight if self.reduction == "mean" else 1.0

    @torch.no_grad()
    def objection(self, batch: Batch, outputs: Any, again: Callable[[Batch], Any]) -> str | None:
        """Return why losses of batches cannot be added up, as this one and its halves show; None where they can.

        Args:
            batch: some samples.
            outputs: of the model on them.
            again: the model, for outputs that cannot be cut.
        """
        if self.known or batch.size < 2 or not batch.can_be_cut:
            return None
        outputs = map_tensors(torch.Tensor.detach, outputs)
        rerun = {len(t) if t.dim() > 0 else None for t in tensors_in(outputs)} != {batch.size}
        if rerun and batch.size < _SMALLEST:
            return None
        try:
            whole, *halves = self._parts(batch, outputs, again if rerun else None)
        except _FAILURES:
            return None
        if not math.isfinite(whole):  # the caller sees that too
            return None
        dtype = next((t.dtype for t in tensors_in(outputs) if t.is_floating_point()), torch.float32)
        tolerance = torch.finfo(dtype).eps ** (1 / 3 if rerun else 1 / 2) * max(map(abs, (whole, *halves)))
        if math.isfinite(tolerance) and abs(whole - sum(halves)) <= tolerance:
            return None
        return self._message(batch, whole, halves)

    def _parts(self, batch: Batch, outputs: Any, again: Callable[[Batch], Any] | None) -> list[float]:
        """Return the sums behind the losses of a batch and of its halves; the outputs on these are cut from those on
        it, or made ``again``."""
        middle, parts = batch.size // 2, []
        for first, last in ((0, batch.size), (0, middle), (middle, batch.size)):
            part = batch.cut(first, last)
            weight = self.of(part)
            if weight == 0:
                parts.append(0.0)
                continue
            seen = again(part) if again else map_tensors(operator.itemgetter(slice(first, last)), outputs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a half: nobody gave it
                parts.append(self.scale(weight) * float(part.loss(self._loss, seen)))
        return parts

    def _message(self, batch: Batch, whole: float, halves: list[float]) -> str:
        denominator = "say by what (denominator=lambda targets: ...), use a loss with reduction='sum', "
        if not all(map(math.isfinite, halves)):
            told = "is a number, but that of a part of it alone is none, as of a mean over no samples"
            advice = f"if it divides by something else than the number of samples, {denominator}or give all samples"
            advice += " as one batch"
        elif self.reduction == "sum":
            told = f"is {whole:.6g}, but those of its halves add up to {sum(halves):.6g}: it is no sum over samples"
            advice = "give all samples as one batch"
        else:
            weight = self.of(batch)
            mean = sum(halves) / weight
            told = f"is {whole / weight:.6g}, but the mean over its halves is {mean:.6g}: it divides by something else"
            told += " than the number of samples" if self._denominator is None else " than the denominator says"
            advice = f"{denominator}or give all samples as one batch"
        return f"the loss of a batch of {batch.size} samples {told}, so that batches cannot be averaged; {advice}"


def mixing_layer(model: nn.Module) -> str | None:
    """Return the name of a layer that computes with statistics of the batch at hand even in eval mode, if any."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            return name or type(module).__name__
    return None


@torch.no_grad()
def samples_mix(batch: Batch, outputs: Any, again: Callable[[Batch], Any]) -> bool:
    """Whether the outputs on the first half of ``batch`` alone differ from those beside the second half.

    Outputs that cannot be cut tell nothing, nor does a model that takes no other number of samples. Rounding differs
    too, so that only a clear difference counts; and what they are padded to, beyond which nothing is compared.
    """
    if batch.size < _SMALLEST or not batch.can_be_cut:
        return False
    whole = [t.detach() for t in tensors_in(outputs) if t.is_floating_point()]
    if not whole or any(t.dim() == 0 or len(t) != batch.size for t in whole):
        return False
    half = batch.size // 2
    try:
        alone = [t for t in tensors_in(again(batch.cut(0, half))) if t.is_floating_point()]
    except _FAILURES:
        return False
    for beside, single in zip(whole, alone, strict=True):
        if beside.dim() != single.dim() or len(single) != half:
            return True
        common = tuple(slice(min(sizes)) for sizes in zip(beside[:half].shape, single.shape, strict=True))
        difference = (beside[common] - single[common]).abs()
        tolerance = torch.finfo(beside.dtype).eps ** 0.5 * (beside.abs().max() if beside.numel() else 0)
        if (difference > 10 * tolerance).any():
            return True
    return False


def _divisor(loss: Any) -> Callable[[Batch], float] | None:
    """Return what a loss of torch's divides its sum by, as a function of the batch; None for others."""
    for kinds, function in ((_BY_CLASS, _class_weights), (_BY_ELEMENT, _elements)):
        for kind in kinds:
            if isinstance(loss, kind) and type(loss).forward is kind.forward:
                if getattr(loss, "reduction", "mean") == "batchmean":
                    return lambda batch: float(batch.size)
                return functools.partial(function, loss)
    return None


def _class_weights(loss: Any, batch: Batch) -> float:
    """Return the sum of the weights of the classes that are not ignored; every one weighs 1 without weights."""
    targets = batch.targets[0]
    if not isinstance(targets, Tensor):
        return float(batch.size)
    if targets.is_floating_point():  # probabilities of C classes: a mean over all axes but that of the classes
        classes = targets.shape[1] if targets.dim() > 1 else targets.shape[0]
        return targets.numel() / classes
    kept = targets[targets != loss.ignore_index]
    return float(len(kept) if loss.weight is None else loss.weight.to(targets.device)[kept].sum(dtype=torch.float64))


def _elements(loss: Any, batch: Batch) -> float:
    targets = batch.targets[0]
    return float(targets.numel()) if isinstance(targets, Tensor) and targets.dim() > 0 else float(batch.size)


def _hashable(loss: Any) -> Any:
    return loss if inspect.isfunction(loss) or inspect.isbuiltin(loss) else None
