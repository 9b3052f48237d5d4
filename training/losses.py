"""The loss that a run minimises, whatever asks for it: a rule, an evaluation, an analysis."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import TrainConfig


@dataclass(frozen=True)
class TrainingLoss:
    """Cross-entropy (nats), against targets of which a share is spread over all classes (Szegedy et al. 2016, section
    7), or the mean of squares over samples and classes of the logits less one-hot targets, as ``nn.MSELoss``.

    Attributes:
        kind: ``cross-entropy`` or ``mse``.
        smoothing: the share, of cross-entropy.
    """

    kind: str = "cross-entropy"
    smoothing: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> "TrainingLoss":
        """Return the loss that ``config`` names."""
        return cls(config.loss, config.label_smoothing if config.loss == "cross-entropy" else 0.0)

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over ``logits`` (N, classes) and ``labels`` (N,), a scalar."""
        if self.kind == "mse":
            return F.mse_loss(logits, one_hot(labels, logits))
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over the samples."""
        if self.kind == "mse":
            return F.mse_loss(logits, one_hot(labels, logits), reduction="sum") / logits.shape[-1]
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="sum")

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample (N,)."""
        if self.kind == "mse":
            return F.mse_loss(logits, one_hot(labels, logits), reduction="none").mean(-1)
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="none")

    def error(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return e (N, classes), the gradient of the mean loss by the logits: what direct feedback sends."""
        classes, wanted = logits.shape[1], one_hot(labels, logits)
        if self.kind == "mse":
            return 2 * (logits - wanted) / (classes * len(labels))
        if self.smoothing:
            wanted = (1 - self.smoothing) * wanted + self.smoothing / classes
        return (logits.softmax(1) - wanted) / len(labels)

    def criterion(self) -> nn.Module:
        """Return the same as a module of torch's, which takes :meth:`targets`: what an analysis differentiates."""
        return nn.MSELoss() if self.kind == "mse" else nn.CrossEntropyLoss(label_smoothing=self.smoothing)

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """Return what :meth:`criterion` compares logits of so many classes with."""
        return labels if self.kind != "mse" else F.one_hot(labels, classes).float()

    def words(self) -> str:
        """Return what it is; empty for plain cross-entropy, which needs no word."""
        smoothed = f"cross-entropy with label smoothing {self.smoothing:g}" if self.smoothing else ""
        return "mean squared error of one-hot targets" if self.kind == "mse" else smoothed


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """Return ``labels`` (...,) as ones and zeros of the shape and type of ``logits``, under ``torch.func.vmap`` too."""
    classes = torch.arange(logits.shape[-1], device=labels.device)
    return (labels[..., None] == classes).to(logits.dtype)
