"""Loss and accuracy of one network, or of many on the same samples."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from training.captured import CapturedStep, Recorder
from training.data import Split
from training.losses import TrainingLoss
from training.recordable import modules_of

CROSS_ENTROPY = TrainingLoss()


@torch.no_grad()
def evaluate(
    model: nn.Module, normalise: nn.Module, split: Split, batch_size: int = 2500, loss: TrainingLoss = CROSS_ENTROPY
) -> tuple[float, float]:
    """Return mean loss and accuracy (0 to 1) of ``model`` on ``split``, in evaluation mode; the loss is
    cross-entropy (nats), unless another is given.

    Args:
        model: normalised images (N, C, H, W) -> logits (N, classes), on the split's device.
        normalise: what its images are normalised by.
        split: the samples.
        batch_size: images a forward pass.
        loss: that of a run which minimises another.

    Example:
        >>> import math
        >>> import torch
        >>> from training import Normalise, evaluate, load_dataset
        >>> data = load_dataset("digits")
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).requires_grad_(False)
        >>> _ = model[1].weight.zero_(), model[1].bias.zero_()  # knows nothing
        >>> loss, accuracy = evaluate(model, Normalise(data.mean, data.std), data.test)
        >>> abs(loss - math.log(10)) < 1e-6, accuracy < 0.2
        (True, True)
    """
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    for images, labels in split.batches(batch_size):
        logits = model(normalise(images))
        total += loss.total(logits, labels)
        correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return total.item() / len(split), correct.item() / len(split)


class StackEvaluation:
    """As :func:`evaluate`, for E networks at once, again and again: a GPU records the pass of a batch.

    Args:
        model: the network whose tensors are replaced.
        stacked: (E, ...) for its parameters and buffers, which stay where they are.
        normalise: what its images are normalised by.
        split: the samples.
        samples: most networks x images in one batch.
        recorder: None where passes are not recorded.
        loss: of the runs.
    """

    def __init__(
        self,
        model: nn.Module,
        stacked: Mapping[str, Tensor],
        normalise: nn.Module,
        split: Split,
        samples: int,
        recorder: Recorder | None = None,
        loss: TrainingLoss = CROSS_ENTROPY,
    ) -> None:
        self.model, self.stacked, self.normalise, self.split = model, dict(stacked), normalise, split
        self.training_loss = loss
        self.size = len(next(iter(stacked.values())))
        self.batch_size = max(1, samples // self.size)
        self.loss = torch.zeros(self.size, dtype=torch.float64, device=split.labels.device)
        self.correct = torch.zeros(self.size, dtype=torch.int64, device=split.labels.device)
        self._add = CapturedStep(
            self._batch,
            recorder,
            moving=lambda: (self.loss, self.correct),
            keepers=modules_of(model),
            what="the evaluation of a stack",
        )

    @torch.no_grad()
    def __call__(self) -> list[tuple[float, float]]:
        """Return loss and accuracy of each network."""
        was_training = self.model.training
        self.model.eval()
        self.loss.zero_()
        self.correct.zero_()
        for batch in self.split.batches(self.batch_size):
            self._add(*batch)
        self.model.train(was_training)
        n = len(self.split)
        return [(x / n, c / n) for x, c in zip(self.loss.tolist(), self.correct.tolist(), strict=True)]

    def forget(self) -> None:
        """Let go of recordings."""
        self._add.forget()

    def _batch(self, images: Tensor, labels: Tensor) -> None:
        """Add what the networks make of (N, C, H, W) images to the sums."""
        forward = vmap(lambda tensors, inputs: functional_call(self.model, tensors, (inputs,)), in_dims=(0, None))
        logits = forward(self.stacked, self.normalise(images))  # (E, N, classes)
        every = labels.expand(self.size, -1)
        loss = self.training_loss.each(logits.flatten(0, 1), every.flatten())
        self.loss += loss.view(self.size, -1).sum(1)
        self.correct += (logits.argmax(-1) == every).sum(1)
